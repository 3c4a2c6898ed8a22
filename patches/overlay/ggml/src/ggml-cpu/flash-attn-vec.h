#pragma once

// Some floats, in a vector of this CPU.

#include "vec.h"

#include <algorithm>
#include <cmath>

// Some floats. FA_PAD is a multiple of `lanes`; `max_rows` times two vectors fit the registers, with two more.
#if defined(__AVX512F__) && defined(__AVX512DQ__)

struct vec {
    static constexpr int lanes = 16, max_rows = 8;
    __m512               v;

    static vec load(const float * p) { return { _mm512_loadu_ps(p) }; }

    static vec set(float x) { return { _mm512_set1_ps(x) }; }

    void store(float * p) const { _mm512_storeu_ps(p, v); }

    vec operator+(vec a) const { return { _mm512_add_ps(v, a.v) }; }

    vec operator-(vec a) const { return { _mm512_sub_ps(v, a.v) }; }

    vec operator*(vec a) const { return { _mm512_mul_ps(v, a.v) }; }

    vec operator/(vec a) const { return { _mm512_div_ps(v, a.v) }; }

    // v + a*x
    vec add(vec a, vec x) const { return { _mm512_fmadd_ps(a.v, x.v, v) }; }

    vec largest(vec a) const { return { _mm512_max_ps(v, a.v) }; }

    vec exp() const { return { ggml_v_expf(v) }; }

    // the same of what is not above 0, without a look at what is far below: e^-150 is 0
    vec exp_below() const {
        const __m512 x     = _mm512_max_ps(_mm512_set1_ps(-150.0f), v);  // NaN stays
        const __m512 magic = _mm512_set1_ps(0x1.8p23f);
        const __m512 z     = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), magic);
        const __m512 n     = _mm512_sub_ps(z, magic);
        const __m512 b =
            _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x));
        const __m512 u   = _mm512_mul_ps(b, b);
        const __m512 top = _mm512_fmadd_ps(_mm512_set1_ps(0x1.0e4020p-7f), b, _mm512_set1_ps(0x1.573e2ep-5f));
        const __m512 mid = _mm512_fmadd_ps(_mm512_set1_ps(0x1.555e66p-3f), b, _mm512_set1_ps(0x1.fffdb6p-2f));
        const __m512 low = _mm512_fmadd_ps(_mm512_set1_ps(0x1.ffffecp-1f), b, _mm512_set1_ps(1.0f));
        return { _mm512_scalef_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(top, u, mid), u, low), n) };
    }

    float sum() const { return _mm512_reduce_add_ps(v); }

    float largest() const { return _mm512_reduce_max_ps(v); }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct vec {
    static constexpr int lanes = 8, max_rows = 6;
    __m256               v;

    static vec load(const float * p) { return { _mm256_loadu_ps(p) }; }

    static vec set(float x) { return { _mm256_set1_ps(x) }; }

    void store(float * p) const { _mm256_storeu_ps(p, v); }

    vec operator+(vec a) const { return { _mm256_add_ps(v, a.v) }; }

    vec operator-(vec a) const { return { _mm256_sub_ps(v, a.v) }; }

    vec operator*(vec a) const { return { _mm256_mul_ps(v, a.v) }; }

    vec operator/(vec a) const { return { _mm256_div_ps(v, a.v) }; }

    vec add(vec a, vec x) const { return { _mm256_fmadd_ps(a.v, x.v, v) }; }

    vec largest(vec a) const { return { _mm256_max_ps(v, a.v) }; }

    vec exp() const { return { ggml_v_expf(v) }; }

    // the same of what is not above 0, and 0 from -87 down, where numbers end that are normal
    vec exp_below() const {
        const __m256 seen  = _mm256_cmp_ps(v, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);  // NaN stays
        const __m256 magic = _mm256_set1_ps(0x1.8p23f);
        const __m256 z     = _mm256_fmadd_ps(v, _mm256_set1_ps(0x1.715476p+0f), magic);
        const __m256 n     = _mm256_sub_ps(z, magic);
        const __m256 b =
            _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), v));
        const __m256  u   = _mm256_mul_ps(b, b);
        const __m256  top = _mm256_fmadd_ps(_mm256_set1_ps(0x1.0e4020p-7f), b, _mm256_set1_ps(0x1.573e2ep-5f));
        const __m256  mid = _mm256_fmadd_ps(_mm256_set1_ps(0x1.555e66p-3f), b, _mm256_set1_ps(0x1.fffdb6p-2f));
        const __m256  low = _mm256_mul_ps(_mm256_set1_ps(0x1.ffffecp-1f), b);
        const __m256  j   = _mm256_fmadd_ps(_mm256_fmadd_ps(top, u, mid), u, low);
        const __m256i e   = _mm256_slli_epi32(_mm256_castps_si256(z), 23);
        const __m256  k   = _mm256_castsi256_ps(_mm256_add_epi32(e, _mm256_castps_si256(_mm256_set1_ps(1.0f))));
        return { _mm256_and_ps(seen, _mm256_fmadd_ps(j, k, k)) };
    }

    float sum() const {
        const __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 y = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
    }

    float largest() const {
        const __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 y = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
    }
};

#elif defined(__ARM_NEON) && defined(__aarch64__)

struct vec {
    static constexpr int lanes = 8, max_rows = 4;
    float32x4_t          lo, hi;

    static vec load(const float * p) { return { vld1q_f32(p), vld1q_f32(p + 4) }; }

    static vec set(float x) { return { vdupq_n_f32(x), vdupq_n_f32(x) }; }

    void store(float * p) const {
        vst1q_f32(p, lo);
        vst1q_f32(p + 4, hi);
    }

    vec operator+(vec a) const { return { vaddq_f32(lo, a.lo), vaddq_f32(hi, a.hi) }; }

    vec operator-(vec a) const { return { vsubq_f32(lo, a.lo), vsubq_f32(hi, a.hi) }; }

    vec operator/(vec a) const { return { vdivq_f32(lo, a.lo), vdivq_f32(hi, a.hi) }; }

    vec add(vec a, vec x) const { return { vfmaq_f32(lo, a.lo, x.lo), vfmaq_f32(hi, a.hi, x.hi) }; }

    vec largest(vec a) const { return { vmaxq_f32(lo, a.lo), vmaxq_f32(hi, a.hi) }; }

    vec exp() const { return { exp4(lo), exp4(hi) }; }

    vec exp_below() const { return exp(); }

    float sum() const { return vaddvq_f32(vaddq_f32(lo, hi)); }

    float largest() const { return vmaxvq_f32(vmaxq_f32(lo, hi)); }

  private:
    static float32x4_t exp4(float32x4_t x) {
#    if defined(__ARM_FEATURE_SVE)
        // upstream's function takes SVE's vectors where there are any
        const svbool_t four = svptrue_pat_b32(SV_VL4);
        float          y[4];
        vst1q_f32(y, x);
        svst1_f32(four, y, ggml_v_expf(four, svld1_f32(four, y)));
        return vld1q_f32(y);
#    else
        return ggml_v_expf(x);
#    endif
    }
};

#else

struct vec {
    static constexpr int lanes = 8, max_rows = 4;
    float                v[lanes];

    template <typename F> static vec each(const F & f) {
        vec x;
        for (int i = 0; i < lanes; i++) {
            x.v[i] = f(i);
        }
        return x;
    }

    static vec load(const float * p) {
        return each([p](int i) { return p[i]; });
    }

    static vec set(float x) {
        return each([x](int) { return x; });
    }

    void store(float * p) const { std::copy(v, v + lanes, p); }

    vec operator+(const vec & a) const {
        return each([&](int i) { return v[i] + a.v[i]; });
    }

    vec operator-(const vec & a) const {
        return each([&](int i) { return v[i] - a.v[i]; });
    }

    vec operator/(const vec & a) const {
        return each([&](int i) { return v[i] / a.v[i]; });
    }

    vec add(const vec & a, const vec & x) const {
        return each([&](int i) { return v[i] + a.v[i] * x.v[i]; });
    }

    vec largest(const vec & a) const {
        return each([&](int i) { return std::max(v[i], a.v[i]); });
    }

    vec exp() const {
#    if defined(__SSE2__)
        vec x;
        _mm_storeu_ps(x.v, ggml_v_expf(_mm_loadu_ps(v)));
        _mm_storeu_ps(x.v + 4, ggml_v_expf(_mm_loadu_ps(v + 4)));
        return x;
#    else
        return each([&](int i) { return expf(v[i]); });
#    endif
    }

    vec exp_below() const { return exp(); }

    float sum() const {
        float x = 0.0f;
        for (float value : v) {
            x += value;
        }
        return x;
    }

    float largest() const { return *std::max_element(v, v + lanes); }
};

#endif
