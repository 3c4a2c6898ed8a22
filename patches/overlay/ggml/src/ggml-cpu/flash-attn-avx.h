#pragma once

// The kernels of attention for AVX2 and FMA, and what AVX-512 adds; flash-attn-generic.h says what they compute.

#include "flash-attn-kernels.h"

#include <immintrin.h>

namespace fa_avx {

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)

// the instruction multiplies unsigned with signed bytes: it gets k + 128, and starts at -128*q
constexpr int8_t KEY_OFFSET = -128;

inline __m256i mul_add(__m256i sum, __m256i k, __m256i q) {
    return _mm256_dpbusd_epi32(sum, k, q);
}

#else

constexpr int8_t KEY_OFFSET = 0;

// levels and queries are within +-127: two products fit 16 bits
inline __m256i mul_add(__m256i sum, __m256i k, __m256i q) {
    const __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(k), _mm256_sign_epi8(q, k));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
}

#endif

template <int NV>
void dot_levels(const fa_levels & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    const __m256i offset = _mm256_set1_epi8(KEY_OFFSET);

    for (int64_t c = 0; c < width; c += 8) {
        for (int64_t b = 0; b < dk / (32 * NV); b++) {
            __m256i kc[8][NV];
            for (int i = 0; i < 8 * NV; i++) {
                const int8_t * x   = k.data + (c + i / NV) * dk + 32 * (NV * b + i % NV);
                kc[i / NV][i % NV] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *) x), offset);
            }
            const __m256 kd = _mm256_loadu_ps(k.steps + b * FA_TILE + c);

            for (int64_t r = 0; r < rows; r++) {
                __m256i qr[NV];
                __m256i p[8];
                __m256i excess = _mm256_setzero_si256();
                for (int i = 0; i < NV; i++) {
                    qr[i]  = _mm256_loadu_si256((const __m256i *) (q.data + r * dk + 32 * (NV * b + i)));
                    excess = KEY_OFFSET == 0 ? excess : mul_add(excess, offset, qr[i]);
                }
                for (int i = 0; i < 8; i++) {
                    p[i] = _mm256_sub_epi32(_mm256_setzero_si256(), excess);
                    for (int j = 0; j < NV; j++) {
                        p[i] = mul_add(p[i], kc[i][j], qr[j]);
                    }
                }
                const __m256i lo = _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
                const __m256i hi = _mm256_hadd_epi32(_mm256_hadd_epi32(p[4], p[5]), _mm256_hadd_epi32(p[6], p[7]));
                const __m256i sum =
                    _mm256_add_epi32(_mm256_permute2x128_si256(lo, hi, 0x20), _mm256_permute2x128_si256(lo, hi, 0x31));
                const __m256 d  = _mm256_mul_ps(_mm256_set1_ps(q.steps[r * (dk / (32 * NV)) + b]), kd);
                float *      sc = s + r * width + c;
                _mm256_storeu_ps(sc, _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sum),
                                                     b == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(sc)));
            }
        }
    }
}

#if defined(__AVX512F__)

struct vec {
    static constexpr int lanes = 16, max_rows = 8;
    __m512               v;

    static vec load(const float * p) { return { _mm512_loadu_ps(p) }; }

    static vec load(const int8_t * p) {
        return { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))) };
    }

    void store(float * p) const { _mm512_storeu_ps(p, v); }

    void add(vec a, float x) { v = _mm512_fmadd_ps(a.v, _mm512_set1_ps(x), v); }

    void raise(vec a) { v = _mm512_max_ps(v, a.v); }
};

#else

struct vec {
    static constexpr int lanes = 8, max_rows = 6;
    __m256               v;

    static vec load(const float * p) { return { _mm256_loadu_ps(p) }; }

    static vec load(const int8_t * p) {
        return { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p))) };
    }

    void store(float * p) const { _mm256_storeu_ps(p, v); }

    void add(vec a, float x) { v = _mm256_fmadd_ps(a.v, _mm256_set1_ps(x), v); }

    void raise(vec a) { v = _mm256_max_ps(v, a.v); }
};

#endif

}  // namespace fa_avx
