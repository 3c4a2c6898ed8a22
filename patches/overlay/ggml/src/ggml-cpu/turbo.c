#include "turbo.h"

#include "ggml-cpu-impl.h"
#include "ggml-turbo.h"

#include "../ggml-turbo-impl.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "simd-mappings.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

// Quantization and rotation give the reference's bits: same operations in the same order, without contraction.
// Dot products add the same exact integer sums, but in another order of floats: relative to the sum of the absolute
// products the difference stays below 1e-6.

static_assert(QK_TURBO == 2*QK8_0, "a turbo block pairs with two q8_0 blocks");

#if defined(__AVX2__) && defined(__FMA__)

//
// quantization
//

typedef struct {
    int     n;         // number of magnitudes
    float   sigma;     // standard deviation that the levels are made for
    float   top;       // largest magnitude
    int32_t levels[8]; // magnitudes, ascending
    float   edges[7];  // midpoints between magnitudes
} turbo_codebook;

static const turbo_codebook turbo2_codebook = { 2, 84.0698f, 127.0f, { 38, 127 }, { 82.5f } };
static const turbo_codebook turbo3_codebook = { 4, 40.9097f,  88.0f, { 10, 31, 55, 88 }, { 20.5f, 43.0f, 71.5f } };
static const turbo_codebook turbo4_codebook = { 8, 38.1556f, 104.0f, { 5, 15, 25, 36, 48, 62, 79, 104 },
    { 10.0f, 20.0f, 30.5f, 42.0f, 55.0f, 70.5f, 91.5f } };

// ((0+4) + (2+6)) + ((1+5) + (3+7)), as the reference
static inline float turbo_sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline float turbo_max_lanes(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

static inline int turbo_add_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// turbo_quantize_block of ggml-turbo.c: 64 codes and the fp16 step of x
static inline bool turbo_quantize_block(const turbo_codebook * cb, const float * x, __m256i * codes, uint16_t * d) {
    const __m256 sign_bit = _mm256_set1_ps(-0.0f);
    const __m256 largest  = _mm256_set1_ps(FLT_MAX);

    __m256 xs[8];
    __m256 amax8  = _mm256_setzero_ps();
    __m256 finite = _mm256_cmp_ps(amax8, amax8, _CMP_EQ_OQ);
    for (int i = 0; i < 8; i++) {
        xs[i] = _mm256_loadu_ps(x + 8*i);
        const __m256 a = _mm256_andnot_ps(sign_bit, xs[i]);
        finite = _mm256_and_ps(finite, _mm256_cmp_ps(a, largest, _CMP_LE_OQ));
        amax8  = _mm256_max_ps(amax8, a);
    }

    const float amax = turbo_max_lanes(amax8);
    if (_mm256_movemask_ps(finite) != 0xff || amax == 0.0f) {
        *d = _mm256_movemask_ps(finite) == 0xff ? 0 : 0x7e00;
        return false;
    }

    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < 8; i++) {
        xs[i] = _mm256_div_ps(xs[i], _mm256_set1_ps(amax));
        sum   = _mm256_add_ps(sum, _mm256_mul_ps(xs[i], xs[i]));
    }

    const float norm2    = turbo_sum_lanes(sum);
    const float trial[4] = {
        cb->sigma/sqrtf(norm2/QK_TURBO), cb->top, cb->top/0.9f, cb->top/0.8f,
    };

    const __m256i levels = _mm256_loadu_si256((const __m256i *) cb->levels);
    const __m256i n      = _mm256_set1_epi32(cb->n);

    float best_score = -1.0f;
    int   best_cc    = 1;

    for (int t = 0; t < 4; t++) {
        const __m256 inv_step = _mm256_set1_ps(trial[t]);

        __m256i code[8];
        __m256i cc8 = _mm256_setzero_si256();
        __m256  xc8 = _mm256_setzero_ps();
        for (int i = 0; i < 8; i++) {
            const __m256 a = _mm256_andnot_ps(sign_bit, _mm256_mul_ps(xs[i], inv_step));
            __m256i m = _mm256_setzero_si256();
            for (int e = 0; e < cb->n - 1; e++) {
                m = _mm256_sub_epi32(m, _mm256_castps_si256(_mm256_cmp_ps(a, _mm256_set1_ps(cb->edges[e]), _CMP_GT_OQ)));
            }
            const __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(xs[i], _mm256_setzero_ps(), _CMP_LT_OQ));
            const __m256i level    = _mm256_permutevar8x32_epi32(levels, m);
            const __m256i signed_  = _mm256_sub_epi32(_mm256_xor_si256(level, negative), negative);
            cc8     = _mm256_add_epi32(cc8, _mm256_madd_epi16(level, level));
            xc8     = _mm256_add_ps(xc8, _mm256_mul_ps(xs[i], _mm256_cvtepi32_ps(signed_)));
            code[i] = _mm256_add_epi32(_mm256_xor_si256(m, negative), n);
        }

        const int   cc    = turbo_add_lanes(cc8);
        const float xc    = turbo_sum_lanes(xc8);
        const float score = xc*xc/(float) cc;
        if (score > best_score) {
            best_score = score;
            best_cc    = cc;
            memcpy(codes, code, sizeof(code));
        }
    }

    const float step = sqrtf(norm2/(float) best_cc)*amax;

    *d = ggml_fp32_to_fp16(step < 65504.0f ? step : 65504.0f);
    return true;
}

// 32 bytes from four vectors of eight 32-bit codes
static inline __m256i turbo_pack_codes(const __m256i * code) {
    const __m256i lo = _mm256_packs_epi32(code[0], code[1]);
    const __m256i hi = _mm256_packs_epi32(code[2], code[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(lo, hi), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// the 2-bit codes of turbo2 and turbo3: 16 bytes from 64
static inline __m128i turbo_pack_2bit(__m256i c0, __m256i c1) {
    const __m256i three = _mm256_set1_epi8(3);
    c0 = _mm256_and_si256(c0, three);
    c1 = _mm256_and_si256(c1, three);
    const __m256i q = _mm256_or_si256(c0, _mm256_slli_epi16(c1, 4));
    return _mm_or_si128(_mm256_castsi256_si128(q), _mm_slli_epi16(_mm256_extracti128_si256(q, 1), 2));
}

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT vy, int64_t k) {
    assert(k % QK_TURBO == 0);

    block_turbo2 * y = vy;
    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        __m256i code[8];
        if (turbo_quantize_block(&turbo2_codebook, x + i*QK_TURBO, code, &y[i].d)) {
            const __m128i q = turbo_pack_2bit(turbo_pack_codes(code), turbo_pack_codes(code + 4));
            _mm_storeu_si128((__m128i *) y[i].qs, q);
        } else {
            memset(y[i].qs, 0, sizeof(y[i].qs));
        }
    }
}

void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT vy, int64_t k) {
    assert(k % QK_TURBO == 0);

    block_turbo3 * y = vy;
    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        __m256i code[8];
        if (turbo_quantize_block(&turbo3_codebook, x + i*QK_TURBO, code, &y[i].d)) {
            const __m256i c0 = turbo_pack_codes(code);
            const __m256i c1 = turbo_pack_codes(code + 4);
            _mm_storeu_si128((__m128i *) y[i].qs, turbo_pack_2bit(c0, c1));
            const uint32_t high[2] = {
                (uint32_t) _mm256_movemask_epi8(_mm256_slli_epi16(c0, 5)),
                (uint32_t) _mm256_movemask_epi8(_mm256_slli_epi16(c1, 5)),
            };
            memcpy(y[i].qh, high, sizeof(high));
        } else {
            memset(y[i].qs, 0, sizeof(y[i].qs));
            memset(y[i].qh, 0, sizeof(y[i].qh));
        }
    }
}

void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT vy, int64_t k) {
    assert(k % QK_TURBO == 0);

    block_turbo4 * y = vy;
    for (int64_t i = 0; i < k/QK_TURBO; i++) {
        __m256i code[8];
        if (turbo_quantize_block(&turbo4_codebook, x + i*QK_TURBO, code, &y[i].d)) {
            const __m256i q = _mm256_or_si256(turbo_pack_codes(code), _mm256_slli_epi16(turbo_pack_codes(code + 4), 4));
            _mm256_storeu_si256((__m256i *) y[i].qs, q);
        } else {
            memset(y[i].qs, 0, sizeof(y[i].qs));
        }
    }
}

//
// dot products
//

static inline void turbo2_levels(const block_turbo2 * x, __m256i * lo, __m256i * hi) {
    const __m256i three = _mm256_set1_epi8(3);
    const __m256i table = _mm256_set1_epi32(0x7f26da81); // -127, -38, 38, 127
    const __m128i q     = _mm_loadu_si128((const __m128i *) x->qs);
    const __m256i q2    = _mm256_set_m128i(_mm_srli_epi16(q, 2), q);
    *lo = _mm256_shuffle_epi8(table, _mm256_and_si256(q2, three));
    *hi = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(q2, 4), three));
}

// 4 in every byte whose bit of the 32 is set
static inline __m256i turbo_spread_bits(const uint8_t * bits) {
    uint32_t b;
    memcpy(&b, bits, sizeof(b));
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i mask = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    const __m256i v    = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int) b), byte), mask);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, mask), _mm256_set1_epi8(4));
}

static inline void turbo3_levels(const block_turbo3 * x, __m256i * lo, __m256i * hi) {
    const __m256i three = _mm256_set1_epi8(3);
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(-88, -55, -31, -10, 10, 31, 55, 88, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m128i q     = _mm_loadu_si128((const __m128i *) x->qs);
    const __m256i q2    = _mm256_set_m128i(_mm_srli_epi16(q, 2), q);
    *lo = _mm256_shuffle_epi8(table, _mm256_or_si256(_mm256_and_si256(q2, three), turbo_spread_bits(x->qh)));
    *hi = _mm256_shuffle_epi8(table, _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(q2, 4), three), turbo_spread_bits(x->qh + 4)));
}

static inline void turbo4_levels(const block_turbo4 * x, __m256i * lo, __m256i * hi) {
    const __m256i fifteen = _mm256_set1_epi8(15);
    const __m256i table   = _mm256_broadcastsi128_si256(_mm_setr_epi8(-104, -79, -62, -48, -36, -25, -15, -5, 5, 15, 25, 36, 48, 62, 79, 104));
    const __m256i q       = _mm256_loadu_si256((const __m256i *) x->qs);
    *lo = _mm256_shuffle_epi8(table, _mm256_and_si256(q, fifteen));
    *hi = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(q, 4), fifteen));
}

// sums of four products each; |levels| <= 127 and |y| <= 127, so two products fit 16 bits
static inline __m256 turbo_mul_sum(__m256i levels, const block_q8_0 * y) {
    const __m256i q  = _mm256_loadu_si256((const __m256i *) y->qs);
    const __m256i ax = _mm256_abs_epi8(levels);
    const __m256i sy = _mm256_sign_epi8(q, levels);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), ax, sy));
#else
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(ax, sy), _mm256_set1_epi16(1)));
#endif
}

#define TURBO_VEC_DOT_BODY(name) \
    __m256 acc = _mm256_setzero_ps(); \
    for (int i = 0; i < n/QK_TURBO; i++) { \
        __m256i lo, hi; \
        name##_levels(&x[i], &lo, &hi); \
        const float d = GGML_CPU_FP16_TO_FP32(x[i].d); \
        acc = _mm256_fmadd_ps(_mm256_set1_ps(d*GGML_CPU_FP16_TO_FP32(y[2*i + 0].d)), turbo_mul_sum(lo, &y[2*i + 0]), acc); \
        acc = _mm256_fmadd_ps(_mm256_set1_ps(d*GGML_CPU_FP16_TO_FP32(y[2*i + 1].d)), turbo_mul_sum(hi, &y[2*i + 1]), acc); \
    } \
    *s = turbo_sum_lanes(acc);

//
// dequantization
//

static inline void turbo_store(__m256i levels, float d, float * y) {
    for (int h = 0; h < 2; h++) {
        const __m128i half = h == 0 ? _mm256_castsi256_si128(levels) : _mm256_extracti128_si256(levels, 1);
        const __m256  a    = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(half));
        const __m256  b    = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(half, 8)));
        _mm256_storeu_ps(y + 16*h,     _mm256_mul_ps(a, _mm256_set1_ps(d)));
        _mm256_storeu_ps(y + 16*h + 8, _mm256_mul_ps(b, _mm256_set1_ps(d)));
    }
}

#define TURBO_TO_FLOAT(name) \
    static void name##_to_float(const void * GGML_RESTRICT vx, float * GGML_RESTRICT y, int64_t k) { \
        const block_##name * x = vx; \
        for (int64_t i = 0; i < k/QK_TURBO; i++) { \
            __m256i lo, hi; \
            name##_levels(&x[i], &lo, &hi); \
            const float d = GGML_CPU_FP16_TO_FP32(x[i].d); \
            turbo_store(lo, d, y + i*QK_TURBO); \
            turbo_store(hi, d, y + i*QK_TURBO + QK8_0); \
        } \
    }

#else // portable

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo2_ref(x, y, k);
}

void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo3_ref(x, y, k);
}

void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo4_ref(x, y, k);
}

// dot product of one block's levels with the two q8_0 blocks beside it, in units of the turbo step
static float turbo_dot_q8_0(const int8_t * levels, const block_q8_0 * y) {
    int32_t sum[2] = { 0, 0 };
    for (int h = 0; h < 2; h++) {
        for (int j = 0; j < QK8_0; j++) {
            sum[h] += levels[h*QK8_0 + j]*y[h].qs[j];
        }
    }
    return GGML_CPU_FP16_TO_FP32(y[0].d)*(float) sum[0] + GGML_CPU_FP16_TO_FP32(y[1].d)*(float) sum[1];
}

#define TURBO_VEC_DOT_BODY(name) \
    float sumf = 0.0f; \
    for (int i = 0; i < n/QK_TURBO; i++) { \
        int8_t levels[QK_TURBO]; \
        ggml_##name##_unpack(&x[i], levels); \
        sumf += GGML_CPU_FP16_TO_FP32(x[i].d)*turbo_dot_q8_0(levels, y + 2*i); \
    } \
    *s = sumf;

#define TURBO_TO_FLOAT(name) \
    static void name##_to_float(const void * GGML_RESTRICT vx, float * GGML_RESTRICT y, int64_t k) { \
        dequantize_row_##name(vx, y, k); \
    }

#endif

TURBO_TO_FLOAT(turbo2)
TURBO_TO_FLOAT(turbo3)
TURBO_TO_FLOAT(turbo4)

ggml_to_float_t ggml_cpu_get_to_float(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_TURBO2: return turbo2_to_float;
        case GGML_TYPE_TURBO3: return turbo3_to_float;
        case GGML_TYPE_TURBO4: return turbo4_to_float;
        default:               return ggml_get_type_traits(type)->to_float;
    }
}

#define TURBO_VEC_DOT(name) \
    void ggml_vec_dot_##name##_q8_0(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) { \
        assert(n % QK_TURBO == 0); \
        assert(nrc == 1); \
        GGML_UNUSED(bs); GGML_UNUSED(bx); GGML_UNUSED(by); GGML_UNUSED(nrc); \
        const block_##name * x = vx; \
        const block_q8_0   * y = vy; \
        TURBO_VEC_DOT_BODY(name) \
    }

TURBO_VEC_DOT(turbo2)
TURBO_VEC_DOT(turbo3)
TURBO_VEC_DOT(turbo4)

//
// rotation
//

// in place, not normalised
static void turbo_fwht(float * x, int64_t n) {
    int64_t len = 1;
#if defined(__AVX2__) && defined(__FMA__)
    // the three steps inside a vector; a + (-b) is a - b
    const __m256 sign1 = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
    const __m256 sign2 = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
    const __m256 sign4 = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);
    if (n % 8 == 0) {
        for (int64_t i = 0; i < n; i += 8) {
            __m256 v = _mm256_loadu_ps(x + i);
            v = _mm256_add_ps(_mm256_permute_ps(v, 0xb1), _mm256_xor_ps(v, sign1));
            v = _mm256_add_ps(_mm256_permute_ps(v, 0x4e), _mm256_xor_ps(v, sign2));
            v = _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), _mm256_xor_ps(v, sign4));
            _mm256_storeu_ps(x + i, v);
        }
        len = 8;
    }
#endif
    for (; len < n; len *= 2) {
        for (int64_t i = 0; i < n; i += 2*len) {
            for (int64_t j = i; j < i + len; j++) {
                const float u = x[j];
                const float v = x[j + len];
                x[j]       = u + v;
                x[j + len] = u - v;
            }
        }
    }
}
bool ggml_compute_forward_turbo_rot(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const int32_t hint = ggml_get_op_params_i32(dst, 1);

    if ((hint != GGML_HINT_SRC0_IS_TURBO_ROT && hint != GGML_HINT_SRC0_IS_TURBO_ROT_INV) || params->use_ref) {
        return false;
    }

    const struct ggml_tensor * src1 = dst->src[1];

    // anything else is left to the ordinary matrix product, which is also right
    if (src1->type != GGML_TYPE_F32 || !ggml_is_contiguous(src1) || !ggml_is_contiguous(dst)) {
        return false;
    }

    const int64_t n  = src1->ne[0];
    const int64_t nr = ggml_nrows(src1);

    GGML_ASSERT(n <= GGML_TURBO_ROT_MAX && (n & (n - 1)) == 0);
    GGML_ASSERT(dst->src[0]->ne[0] == n && dst->src[0]->ne[1] == n);

    const bool inverse = hint == GGML_HINT_SRC0_IS_TURBO_ROT_INV;

    // the normalisation is folded into the signs
    float sign[GGML_TURBO_ROT_MAX];
    for (int64_t j = 0; j < n; j++) {
        sign[j] = ggml_turbo_sign(j)/sqrtf((float) n);
    }

    const int64_t dr  = (nr + params->nth - 1)/params->nth;
    const int64_t ir0 = dr*params->ith;
    const int64_t ir1 = MIN(ir0 + dr, nr);

    for (int64_t ir = ir0; ir < ir1; ir++) {
        const float * x = (const float *) src1->data + ir*n;
              float * y = (      float *) dst->data  + ir*n;
        for (int64_t j = 0; j < n; j++) {
            y[j] = inverse ? x[j] : x[j]*sign[j];
        }
        turbo_fwht(y, n);
        for (int64_t j = 0; inverse && j < n; j++) {
            y[j] *= sign[j];
        }
    }

    return true;
}
