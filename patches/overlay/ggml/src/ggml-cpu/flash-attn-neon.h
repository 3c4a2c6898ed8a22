#pragma once

// The kernels of attention for NEON; flash-attn-generic.h says what they compute. CPUs with SVE run them as well.

#include "flash-attn-kernels.h"
#include "ggml-cpu-impl.h"

namespace fa_neon {

template <int NV>
void dot_levels(const fa_levels & q, const fa_levels & k, int64_t rows, int64_t width, int64_t dk, float * s) {
    for (int64_t c = 0; c < width; c += 4) {
        for (int64_t b = 0; b < dk / (32 * NV); b++) {
            const float32x4_t kd = vld1q_f32(k.steps + b * FA_TILE + c);
            for (int64_t r = 0; r < rows; r++) {
                int32x4_t p[4];
                for (int i = 0; i < 4; i++) {
                    p[i] = vdupq_n_s32(0);
                    for (int64_t j = 32 * NV * b; j < 32 * NV * (b + 1); j += 16) {
                        p[i] = ggml_vdotq_s32(p[i], vld1q_s8(k.data + (c + i) * dk + j), vld1q_s8(q.data + r * dk + j));
                    }
                }
                const int32x4_t sum = vpaddq_s32(vpaddq_s32(p[0], p[1]), vpaddq_s32(p[2], p[3]));
                float *         sc  = s + r * width + c;
                vst1q_f32(sc, vfmaq_f32(b == 0 ? vdupq_n_f32(0.0f) : vld1q_f32(sc),
                                        vmulq_n_f32(kd, q.steps[r * (dk / (32 * NV)) + b]), vcvtq_f32_s32(sum)));
            }
        }
    }
}

struct vec {
    static constexpr int lanes = 8, max_rows = 4;
    float32x4_t          lo, hi;

    static vec load(const float * p) { return { vld1q_f32(p), vld1q_f32(p + 4) }; }

    static vec load(const int8_t * p) {
        const int16x8_t x = vmovl_s8(vld1_s8(p));
        return { vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(x))) };
    }

    void store(float * p) const {
        vst1q_f32(p, lo);
        vst1q_f32(p + 4, hi);
    }

    void add(vec a, float x) {
        lo = vfmaq_n_f32(lo, a.lo, x);
        hi = vfmaq_n_f32(hi, a.hi, x);
    }

    void raise(vec a) {
        lo = vmaxq_f32(lo, a.lo);
        hi = vmaxq_f32(hi, a.hi);
    }
};

}  // namespace fa_neon
