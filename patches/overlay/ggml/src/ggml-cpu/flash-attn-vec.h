#pragma once

// Some floats, in a vector of this CPU.

#include "vec.h"

#include <algorithm>
#include <cmath>

#if defined(__AVX2__) && defined(__FMA__)

// e^x = p * 2^n, with the constants of ggml_v_expf; the lowest bits of z hold n
template <typename V> struct exp_parts {
    V z, n, p;

    explicit exp_parts(V x) {
        const V magic = V::set(0x1.8p23f);
        z             = magic.add(x, V::set(0x1.715476p+0f));
        n             = z - magic;
        const V b     = x.add(n, V::set(-0x1.62e4p-1f)).add(n, V::set(-0x1.7f7d1cp-20f));
        const V u     = b * b;
        const V top   = V::set(0x1.573e2ep-5f).add(V::set(0x1.0e4020p-7f), b);
        const V mid   = V::set(0x1.fffdb6p-2f).add(V::set(0x1.555e66p-3f), b);
        const V low   = V::set(1.0f).add(V::set(0x1.ffffecp-1f), b);
        p             = low.add(mid.add(top, u), u);
    }
};

#endif

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
        const exp_parts<vec> e(vec{ _mm512_max_ps(_mm512_set1_ps(-150.0f), v) });  // NaN stays
        return { _mm512_scalef_ps(e.p.v, e.n.v) };
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
        const exp_parts<vec> e(*this);
        const __m256i        bits = _mm256_slli_epi32(_mm256_castps_si256(e.z.v), 23);
        const __m256 power = _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_castps_si256(_mm256_set1_ps(1.0f))));
        const __m256 seen  = _mm256_cmp_ps(v, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);  // NaN stays
        return { _mm256_and_ps(seen, _mm256_mul_ps(e.p.v, power)) };
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
