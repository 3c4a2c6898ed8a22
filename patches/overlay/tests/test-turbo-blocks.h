#pragma once

// Blocks of 64 values that a kernel is likely to get wrong, and many random ones. Whoever quantizes them, on whatever
// backend, must give the reference's bytes.

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

// n_blocks blocks, always the same ones: Gaussian of any scale, constant, denormal, with one value of any size, with
// one that is not finite, all zero but one of any size, negative zeros, and values midway between levels: levels[0] are
// the positive narrow ones of the type, levels[1] the wide ones.
static inline std::vector<float> turbo_test_blocks(const std::vector<int> * levels, int n_blocks) {
    std::mt19937                          gen(3);
    std::normal_distribution<float>       normal;
    std::uniform_real_distribution<float> exponent(-40.0f, 38.0f);

    std::vector<float> x(64), all;
    all.reserve(x.size() * n_blocks);
    for (int i = 0; i < n_blocks; i++) {
        const float scale = std::pow(10.0f, exponent(gen));
        for (float & v : x) {
            v = normal(gen) * (i % 4 == 0 ? scale : 1.0f);
        }
        switch (i % 16) {
            case 1:
                x[gen() % 64] = scale;
                break;
            case 2:
                std::fill(x.begin(), x.end(), x[0]);
                break;
            case 3:
                x[gen() % 64] = i % 32 == 3 ? NAN : -INFINITY;
                break;
            case 5:
                std::fill(x.begin() + 1, x.end(), 0.0f);
                x[0] *= scale;
                break;
            case 6:
                std::fill(x.begin(), x.end(), -0.0f);
                break;
            case 7:
                for (float & v : x) {
                    v *= 1e-44f;
                }
                break;
            case 9:
                for (int j = 0; j < 64; j++) {
                    const auto & l    = levels[j / 32];
                    const int    m    = j % (int) l.size();
                    const float  edge = m == 0 ? 0.0f : 0.5f * (l[m] + l[m - 1]);
                    x[j]              = j % 2 ? -edge : edge;
                }
                x[0] = (float) levels[0].back();
                break;
        }
        all.insert(all.end(), x.begin(), x.end());
    }
    return all;
}
