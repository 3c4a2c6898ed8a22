#include "turbo.h"

#include "ggml-cpu-impl.h"
#include "ggml-turbo.h"
#include "kv-levels.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

// Quantization gives the reference's bits: same operations in the same order, without contraction.
// Dot products add the same exact integer sums, but in another order of floats: relative to the sum of the absolute
// products the difference stays below 1e-6.

static_assert(QK_TURBO == 2 * QK8_0, "a turbo block pairs with two q8_0 blocks");

//
// quantization
//

// eight floats, and eight 32-bit integers
#if defined(__AVX2__)

#    define TURBO_SIMD

typedef __m256  f32x8;
typedef __m256i i32x8;

static inline f32x8 f32x8_load(const float * p) {
    return _mm256_loadu_ps(p);
}

static inline void f32x8_store(float * p, f32x8 a) {
    _mm256_storeu_ps(p, a);
}

static inline f32x8 f32x8_set(float x) {
    return _mm256_set1_ps(x);
}

static inline f32x8 f32x8_add(f32x8 a, f32x8 b) {
    return _mm256_add_ps(a, b);
}

static inline f32x8 f32x8_mul(f32x8 a, f32x8 b) {
    return _mm256_mul_ps(a, b);
}

static inline f32x8 f32x8_div(f32x8 a, f32x8 b) {
    return _mm256_div_ps(a, b);
}

static inline f32x8 f32x8_max(f32x8 a, f32x8 b) {
    return _mm256_max_ps(a, b);
}

static inline f32x8 f32x8_abs(f32x8 a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

static inline i32x8 f32x8_gt(f32x8 a, f32x8 b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

static inline bool f32x8_all_le(f32x8 a, f32x8 b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)) == 0xff;
}

static inline f32x8 f32x8_sub(f32x8 a, f32x8 b) {
    return _mm256_sub_ps(a, b);
}

static inline f32x8 f32x8_min(f32x8 a, f32x8 b) {
    return _mm256_min_ps(a, b);
}

static inline f32x8 f32x8_from_i32(i32x8 a) {
    return _mm256_cvtepi32_ps(a);
}

static inline i32x8 i32x8_round(f32x8 a) {
    return _mm256_cvtps_epi32(a);
}

static inline i32x8 i32x8_load(const void * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

// eight pairs of values of a factor
static inline i32x8 i16x16_load_i8(const int8_t * p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) p));
}

static inline i32x8 i32x8_or(i32x8 a, i32x8 b) {
    return _mm256_or_si256(a, b);
}

// in the units of what is rounded for scores
static inline i32x8 i32x8_mul_unit(i32x8 a) {
    return _mm256_mullo_epi32(a, _mm256_set1_epi32(GGML_TURBO_FACTOR_UNIT));
}

// the two halves of each lane apart
static inline i32x8 i16x16_sub(i32x8 a, i32x8 b) {
    return _mm256_sub_epi16(a, b);
}

// sum plus the products of both halves
static inline i32x8 i32x8_add_dot(i32x8 sum, i32x8 a, i32x8 b) {
#    if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpwssd_epi32(sum, a, b);
#    else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#    endif
}

// values that fit half a lane: of lanes 0, 2, .. in the lower one, of 1, 3, .. in the upper one
static inline i32x8 i32x8_halves(i32x8 a) {
    return _mm256_blend_epi16(_mm256_setzero_si256(), _mm256_sllv_epi32(a, _mm256_set1_epi64x(16LL << 32)), 0x99);
}

// of halves: both values of a pair in lanes 0, 2, ..
static inline i32x8 i32x8_pairs(i32x8 a) {
    return _mm256_or_si256(a, _mm256_srli_epi64(a, 32));
}

// 16 edges
typedef struct {
    __m256i lo, hi;
} turbo_edges;

static inline turbo_edges turbo_load_edges(const int32_t * edges) {
    const turbo_edges res = { i32x8_load(edges), i32x8_load(edges + 8) };
    return res;
}

// how many of them value i is above
static inline uint32_t turbo_count_above(i32x8 t, int i, turbo_edges edges) {
    const __m256i ti = _mm256_permutevar8x32_epi32(t, _mm256_set1_epi32(i));
    const __m256i lo = _mm256_cmpgt_epi32(ti, edges.lo);
    const __m256i hi = _mm256_cmpgt_epi32(ti, edges.hi);
    return (uint32_t) _mm_popcnt_u32((uint32_t) _mm256_movemask_epi8(_mm256_packs_epi32(lo, hi))) / 2;
}

static inline i32x8 i32x8_set(int32_t x) {
    return _mm256_set1_epi32(x);
}

static inline i32x8 i32x8_add(i32x8 a, i32x8 b) {
    return _mm256_add_epi32(a, b);
}

static inline i32x8 i32x8_sub(i32x8 a, i32x8 b) {
    return _mm256_sub_epi32(a, b);
}

static inline i32x8 i32x8_xor(i32x8 a, i32x8 b) {
    return _mm256_xor_si256(a, b);
}

static inline void i32x8_store(int32_t * p, i32x8 a) {
    _mm256_storeu_si256((__m256i *) p, a);
}

// ((0+4) + (2+6)) + ((1+5) + (3+7)), as the reference
static inline float f32x8_sum(f32x8 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s        = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

// the sums of 2*GGML_TURBO_N_GROUPS vectors, each as f32x8_sum adds it
static inline void f32x8_sums(const f32x8 * v, float * sums) {
    __m256 halves[4];
    for (int i = 0; i < 4; i++) {
        // of vector i in the lower half, of vector i + 4 in the upper one: 0+4, 1+5, 2+6, 3+7
        halves[i] =
            _mm256_add_ps(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20), _mm256_permute2f128_ps(v[i], v[i + 4], 0x31));
    }
    __m256 quarters[2];
    for (int i = 0; i < 2; i++) {
        quarters[i] = _mm256_add_ps(_mm256_shuffle_ps(halves[2 * i], halves[2 * i + 1], 0x44),
                                    _mm256_shuffle_ps(halves[2 * i], halves[2 * i + 1], 0xee));
    }
    _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_shuffle_ps(quarters[0], quarters[1], 0x88),
                                         _mm256_shuffle_ps(quarters[0], quarters[1], 0xdd)));
}

static inline float f32x8_largest(f32x8 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m        = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

#    define TURBO_SIMD

typedef float32x4x2_t f32x8;
typedef int32x4x2_t   i32x8;

#    define F32X8(lo, hi) \
        ((f32x8) {        \
            { lo, hi } \
        })
#    define I32X8(lo, hi) \
        ((i32x8) {        \
            { lo, hi } \
        })

static inline f32x8 f32x8_load(const float * p) {
    return F32X8(vld1q_f32(p), vld1q_f32(p + 4));
}

static inline void f32x8_store(float * p, f32x8 a) {
    vst1q_f32(p, a.val[0]);
    vst1q_f32(p + 4, a.val[1]);
}

static inline f32x8 f32x8_set(float x) {
    return F32X8(vdupq_n_f32(x), vdupq_n_f32(x));
}

static inline f32x8 f32x8_add(f32x8 a, f32x8 b) {
    return F32X8(vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_mul(f32x8 a, f32x8 b) {
    return F32X8(vmulq_f32(a.val[0], b.val[0]), vmulq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_div(f32x8 a, f32x8 b) {
    return F32X8(vdivq_f32(a.val[0], b.val[0]), vdivq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_max(f32x8 a, f32x8 b) {
    return F32X8(vmaxq_f32(a.val[0], b.val[0]), vmaxq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_abs(f32x8 a) {
    return F32X8(vabsq_f32(a.val[0]), vabsq_f32(a.val[1]));
}

static inline i32x8 f32x8_gt(f32x8 a, f32x8 b) {
    return I32X8(vreinterpretq_s32_u32(vcgtq_f32(a.val[0], b.val[0])),
                 vreinterpretq_s32_u32(vcgtq_f32(a.val[1], b.val[1])));
}

static inline i32x8 i32x8_set(int32_t x) {
    return I32X8(vdupq_n_s32(x), vdupq_n_s32(x));
}

static inline i32x8 i32x8_add(i32x8 a, i32x8 b) {
    return I32X8(vaddq_s32(a.val[0], b.val[0]), vaddq_s32(a.val[1], b.val[1]));
}

static inline i32x8 i32x8_sub(i32x8 a, i32x8 b) {
    return I32X8(vsubq_s32(a.val[0], b.val[0]), vsubq_s32(a.val[1], b.val[1]));
}

static inline i32x8 i32x8_xor(i32x8 a, i32x8 b) {
    return I32X8(veorq_s32(a.val[0], b.val[0]), veorq_s32(a.val[1], b.val[1]));
}

static inline void i32x8_store(int32_t * p, i32x8 a) {
    vst1q_s32(p, a.val[0]);
    vst1q_s32(p + 4, a.val[1]);
}

static inline f32x8 f32x8_sub(f32x8 a, f32x8 b) {
    return F32X8(vsubq_f32(a.val[0], b.val[0]), vsubq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_min(f32x8 a, f32x8 b) {
    return F32X8(vminq_f32(a.val[0], b.val[0]), vminq_f32(a.val[1], b.val[1]));
}

static inline f32x8 f32x8_from_i32(i32x8 a) {
    return F32X8(vcvtq_f32_s32(a.val[0]), vcvtq_f32_s32(a.val[1]));
}

static inline i32x8 i32x8_round(f32x8 a) {
    return I32X8(vcvtnq_s32_f32(a.val[0]), vcvtnq_s32_f32(a.val[1]));
}

static inline i32x8 i32x8_load(const void * p) {
    return I32X8(vld1q_s32(p), vld1q_s32((const int32_t *) p + 4));
}

static inline i32x8 i16x16_load_i8(const int8_t * p) {
    const int8x16_t a = vld1q_s8(p);
    return I32X8(vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(a))), vreinterpretq_s32_s16(vmovl_high_s8(a)));
}

static inline i32x8 i32x8_or(i32x8 a, i32x8 b) {
    return I32X8(vorrq_s32(a.val[0], b.val[0]), vorrq_s32(a.val[1], b.val[1]));
}

static inline i32x8 i32x8_mul_unit(i32x8 a) {
    return I32X8(vmulq_n_s32(a.val[0], GGML_TURBO_FACTOR_UNIT), vmulq_n_s32(a.val[1], GGML_TURBO_FACTOR_UNIT));
}

static inline int32x4_t turbo_sub_halves(int32x4_t a, int32x4_t b) {
    return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
}

static inline i32x8 i16x16_sub(i32x8 a, i32x8 b) {
    return I32X8(turbo_sub_halves(a.val[0], b.val[0]), turbo_sub_halves(a.val[1], b.val[1]));
}

static inline int32x4_t turbo_dot_halves(int32x4_t a, int32x4_t b) {
    const int16x8_t x = vreinterpretq_s16_s32(a);
    const int16x8_t y = vreinterpretq_s16_s32(b);
    return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}

static inline i32x8 i32x8_add_dot(i32x8 sum, i32x8 a, i32x8 b) {
    return I32X8(vaddq_s32(sum.val[0], turbo_dot_halves(a.val[0], b.val[0])),
                 vaddq_s32(sum.val[1], turbo_dot_halves(a.val[1], b.val[1])));
}

static inline i32x8 i32x8_halves(i32x8 a) {
    const int32_t   shifts[4] = { 0, 16, 0, 16 };
    const uint32_t  halves[4] = { 0xffff, 0xffff0000, 0xffff, 0xffff0000 };
    const int32x4_t shift     = vld1q_s32(shifts);
    const int32x4_t mask      = vreinterpretq_s32_u32(vld1q_u32(halves));
    return I32X8(vandq_s32(vshlq_s32(a.val[0], shift), mask), vandq_s32(vshlq_s32(a.val[1], shift), mask));
}

static inline int32x4_t turbo_join_pairs(int32x4_t a) {
    return vorrq_s32(a, vreinterpretq_s32_u64(vshrq_n_u64(vreinterpretq_u64_s32(a), 32)));
}

static inline i32x8 i32x8_pairs(i32x8 a) {
    return I32X8(turbo_join_pairs(a.val[0]), turbo_join_pairs(a.val[1]));
}

typedef int32x4x4_t turbo_edges;

static inline turbo_edges turbo_load_edges(const int32_t * edges) {
    return vld1q_s32_x4(edges);
}

static inline uint32_t turbo_count_above(i32x8 t, int i, turbo_edges edges) {
    const int32_t    x  = i < 4 ? t.val[0][i] : t.val[1][i - 4];
    const int32x4_t  ti = vdupq_n_s32(x);
    const uint32x4_t lo = vaddq_u32(vcgtq_s32(ti, edges.val[0]), vcgtq_s32(ti, edges.val[1]));
    const uint32x4_t hi = vaddq_u32(vcgtq_s32(ti, edges.val[2]), vcgtq_s32(ti, edges.val[3]));
    return 0 - vaddvq_u32(vaddq_u32(lo, hi));
}

static inline f32x8 f32x8_and(i32x8 mask, f32x8 a) {
    return F32X8(vreinterpretq_f32_s32(vandq_s32(mask.val[0], vreinterpretq_s32_f32(a.val[0]))),
                 vreinterpretq_f32_s32(vandq_s32(mask.val[1], vreinterpretq_s32_f32(a.val[1]))));
}

static inline bool f32x8_all_le(f32x8 a, f32x8 b) {
    return vminvq_u32(vandq_u32(vcleq_f32(a.val[0], b.val[0]), vcleq_f32(a.val[1], b.val[1]))) != 0;
}

static inline float f32x8_sum(f32x8 v) {
    const float32x4_t s = vaddq_f32(v.val[0], v.val[1]);
    return vaddv_f32(vadd_f32(vget_low_f32(s), vget_high_f32(s)));
}

// the sums of 2*GGML_TURBO_N_GROUPS vectors, each as f32x8_sum adds it
static inline void f32x8_sums(const f32x8 * v, float * sums) {
    for (int i = 0; i < 8; i += 4) {
        float32x4_t quarters[2];
        for (int j = 0; j < 2; j++) {
            const float32x4_t a = vaddq_f32(v[i + 2 * j].val[0], v[i + 2 * j].val[1]);
            const float32x4_t b = vaddq_f32(v[i + 2 * j + 1].val[0], v[i + 2 * j + 1].val[1]);
            quarters[j]         = vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                                            vcombine_f32(vget_high_f32(a), vget_high_f32(b)));
        }
        vst1q_f32(sums + i, vpaddq_f32(quarters[0], quarters[1]));
    }
}

static inline float f32x8_largest(f32x8 v) {
    return vmaxvq_f32(vmaxq_f32(v.val[0], v.val[1]));
}

#endif

#if defined(TURBO_SIMD)

// vectors of a block, of a group
#    define N_BLOCK (QK_TURBO / 8)
#    define N_GROUP (N_BLOCK / GGML_TURBO_N_GROUPS)

// edges, and the magnitudes between them; where there is no lookup, the first one and what each edge adds
typedef struct {
    f32x8 edge[7];
#    if defined(__AVX2__)
    f32x8 magnitudes;
#    else
    f32x8 first;
    f32x8 rise[7];
#    endif
} turbo_table;

static inline turbo_table turbo_load_table(const ggml_turbo_codebook * cb, int wide, int n) {
    turbo_table table;
    for (int i = 0; i < n - 1; i++) {
        table.edge[i] = f32x8_set(cb->edges[wide][i]);
    }
#    if defined(__AVX2__)
    table.magnitudes = f32x8_load(cb->magnitudes[wide]);
#    else
    table.first = f32x8_set(cb->magnitudes[wide][0]);
    for (int i = 0; i < n - 1; i++) {
        table.rise[i] = f32x8_set(cb->magnitudes[wide][i + 1] - cb->magnitudes[wide][i]);
    }
#    endif
    return table;
}

// the magnitudes that are nearest to z, and their positions
static inline f32x8 turbo_nearest(const turbo_table * table, int n, f32x8 z, i32x8 * m) {
    *m = i32x8_set(0);
#    if defined(__AVX2__)
    for (int i = 0; i < n - 1; i++) {
        *m = i32x8_sub(*m, f32x8_gt(z, table->edge[i]));
    }
    return _mm256_permutevar8x32_ps(table->magnitudes, *m);
#    else
    f32x8 l = table->first;
    for (int i = 0; i < n - 1; i++) {
        const i32x8 above = f32x8_gt(z, table->edge[i]);
        l                 = f32x8_add(l, f32x8_and(above, table->rise[i]));
        *m                = i32x8_sub(*m, above);
    }
    return l;
#    endif
}

// turbo_gain of ggml-turbo.c, for magnitudes a
static inline void turbo_gain(const turbo_table * table, int n, const f32x8 * a, float step, float * gain) {
    const f32x8 inv_step = f32x8_set(1.0f / step);
    f32x8       products[2 * GGML_TURBO_N_GROUPS];  // a*l of the groups, then l*l
    for (int g = 0; g < GGML_TURBO_N_GROUPS; g++) {
        f32x8 xl = f32x8_set(0.0f);
        f32x8 ll = f32x8_set(0.0f);
        for (int v = g * N_GROUP; v < (g + 1) * N_GROUP; v++) {
            i32x8       m;
            const f32x8 l = turbo_nearest(table, n, f32x8_mul(a[v], inv_step), &m);
            xl            = f32x8_add(xl, f32x8_mul(a[v], l));
            ll            = f32x8_add(ll, f32x8_mul(l, l));
        }
        products[g]                       = xl;
        products[GGML_TURBO_N_GROUPS + g] = ll;
    }
    float sums[2 * GGML_TURBO_N_GROUPS];
    f32x8_sums(products, sums);
    for (int g = 0; g < GGML_TURBO_N_GROUPS; g++) {
        gain[g] = step * ((sums[g] + sums[g]) - step * sums[GGML_TURBO_N_GROUPS + g]);
    }
}

// turbo_assign of ggml-turbo.c; codes may be null
static inline float turbo_assign(const ggml_turbo_codebook * cb,
                                 int                         n,
                                 const f32x8 *               x,
                                 float                       norm2,
                                 float                       inv_step,
                                 int                         wide,
                                 int32_t *                   codes) {
    f32x8 xl = f32x8_set(0.0f);
    f32x8 ll = f32x8_set(0.0f);
    for (int g = 0; g < GGML_TURBO_N_GROUPS; g++) {
        const turbo_table table = turbo_load_table(cb, (wide >> g) & 1, n);
        for (int v = g * N_GROUP; v < (g + 1) * N_GROUP; v++) {
            const f32x8 a = f32x8_abs(x[v]);
            i32x8       m;
            const f32x8 l = turbo_nearest(&table, n, f32x8_mul(a, f32x8_set(inv_step)), &m);
            xl            = f32x8_add(xl, f32x8_mul(a, l));
            ll            = f32x8_add(ll, f32x8_mul(l, l));
            if (codes) {
                // n + m, or n - 1 - m for a negative value
                i32x8_store(codes + 8 * v, i32x8_add(i32x8_xor(m, f32x8_gt(f32x8_set(0.0f), x[v])), i32x8_set(n)));
            }
        }
    }
    const float sum     = f32x8_sum(ll);
    const float squares = f32x8_sum(xl) / sum;
    const float norm    = sqrtf(norm2 / sum);
    return squares + cb->norm_weight * (norm - squares);
}

// Asks memory for one of n parts of a factor, if it is one: between two tokens the weights push it out of the caches. Asked
// for all at once it would keep other reads waiting.
static inline void turbo_ask_for(const ggml_turbo_factor * factor, int part, int n) {
    const int n_lines = factor ? (int) (sizeof(*factor) + 63) / 64 : 0;
    for (int i = n_lines * part / n; i < n_lines * (part + 1) / n; i++) {
        kv_ask_for((const char *) factor + 64 * i);
    }
}

// turbo_quantize_block of ggml-turbo.c; asks for a factor meanwhile
static inline bool turbo_quantize_block(const ggml_turbo_codebook * cb,
                                        int                         n,
                                        const float *               x,
                                        const ggml_turbo_factor *   ahead,
                                        int32_t *                   codes,
                                        uint16_t *                  d) {
    f32x8 xs[N_BLOCK];
    f32x8 amax8  = f32x8_set(0.0f);
    bool  finite = true;
    for (int v = 0; v < N_BLOCK; v++) {
        xs[v]         = f32x8_load(x + 8 * v);
        const f32x8 a = f32x8_abs(xs[v]);
        finite        = finite && f32x8_all_le(a, f32x8_set(FLT_MAX));
        amax8         = f32x8_max(amax8, a);
    }

    const float amax = finite ? f32x8_largest(amax8) : 0.0f;
    if (amax == 0.0f) {
        *d = finite ? 0 : GGML_TURBO_NAN;
        return false;
    }

    f32x8 a[N_BLOCK];
    f32x8 squares = f32x8_set(0.0f);
    for (int v = 0; v < N_BLOCK; v++) {
        xs[v]   = f32x8_div(xs[v], f32x8_set(amax));
        a[v]    = f32x8_abs(xs[v]);
        squares = f32x8_add(squares, f32x8_mul(xs[v], xs[v]));
    }

    const float norm2 = f32x8_sum(squares);
    const float unit  = sqrtf(norm2 / QK_TURBO) / cb->sigma;

    const turbo_table narrow = turbo_load_table(cb, 0, n);
    float             gain[GGML_TURBO_N_TRIALS][GGML_TURBO_N_GROUPS];
    for (int t = 0; t < cb->n_trials; t++) {
        turbo_gain(&narrow, n, a, unit * cb->trials[t], gain[t]);
        turbo_ask_for(ahead, t, cb->n_trials);
    }

    int       wide;
    const int best = ggml_turbo_choose(cb, gain, &wide);

    float    fit  = turbo_assign(cb, n, xs, norm2, 1.0f / (unit * cb->trials[best]), wide, codes);
    uint16_t step = ggml_turbo_round_step(fit * amax);
    if (step != 0) {
        fit  = turbo_assign(cb, n, xs, norm2, amax / (kv_step(step) * GGML_TURBO_STEP_UNIT), wide, codes);
        step = ggml_turbo_round_step(fit * amax);
    }

    *d = (uint16_t) (step << 1 | wide);
    return true;
}

// the 2-bit codes of turbo2 and turbo3: 16 bytes from 64
static inline void turbo_pack_2bit(const int32_t * codes, uint8_t * q) {
    for (int j = 0; j < QK_TURBO / 4; j++) {
        q[j] =
            (uint8_t) ((codes[j] & 3) | (codes[j + 16] & 3) << 2 | (codes[j + 32] & 3) << 4 | (codes[j + 48] & 3) << 6);
    }
}

// one of the blocks that are rounded beside each other: while one waits for what its last value was rounded to, others go on
typedef struct {
    const ggml_turbo_factor * factor;

    float   step;
    int     wide;
    int32_t z[QK_TURBO];
    int32_t halves[QK_TURBO];  // of z
    int32_t pairs[QK_TURBO];   // of z
    int32_t t[QK_TURBO];
    int32_t u[QK_TURBO];
    int32_t codes[QK_TURBO];
} turbo_scores;

// By group table: the edges below codes 1, 2, .., and levels by code, in the lower half of a lane and in the upper one
typedef struct {
    int32_t edges[2][16];
    int32_t levels[2][2][16];
} turbo_scores_table;

static inline turbo_scores_table turbo_table_for_scores(const ggml_turbo_codebook * cb, int n) {
    const float        unit = GGML_TURBO_SCORES_UNIT * GGML_TURBO_FACTOR_UNIT;
    turbo_scores_table table;
    for (int w = 0; w < 2; w++) {
        for (int i = 0; i < 16; i++) {
            table.edges[w][i] = INT32_MAX;
        }
        for (int m = 0; m < n; m++) {
            const int32_t level           = (int32_t) cb->magnitudes[w][m] * GGML_TURBO_SCORES_UNIT;
            // a negative value on an edge has the smaller magnitude
            const int32_t edge            = m > 0 ? (int32_t) (cb->edges[w][m - 1] * unit) : 0;
            table.edges[w][n - 1 - m]     = -edge - 1;
            table.edges[w][n - 1 + m]     = m > 0 ? edge : -1;
            table.levels[w][0][n + m]     = level;
            table.levels[w][0][n - 1 - m] = 0x10000 - level;
            table.levels[w][1][n + m]     = level * 0x10000;
            table.levels[w][1][n - 1 - m] = -level * 0x10000;
        }
    }
    return table;
}

// t or u of eight values: sum plus the products of four pairs with a square of the factor
static inline i32x8 turbo_add_square(i32x8 sum, const i32x8 * square, const i32x8 * pairs) {
    const i32x8 a = i32x8_add_dot(i32x8_add_dot(sum, square[0], pairs[0]), square[1], pairs[1]);
    const i32x8 b = i32x8_add_dot(i32x8_add_dot(i32x8_set(0), square[2], pairs[2]), square[3], pairs[3]);
    return i32x8_add(a, b);
}

// turbo_round_scores of ggml-turbo.c for n_blocks, but for the fit of the step
static inline void turbo_round_blocks(const turbo_scores_table * table, int n_blocks, turbo_scores * x) {
    // eight values one after the other, then what they do to all that follow
    for (int begin = 0; begin < QK_TURBO; begin += 8) {
        const int8_t *  factor[GGML_TURBO_BESIDE];
        const int32_t * levels[GGML_TURBO_BESIDE];
        turbo_edges     edges[GGML_TURBO_BESIDE];
        i32x8           t[GGML_TURBO_BESIDE];
        i32x8           errors[GGML_TURBO_BESIDE][4];
        for (int b = 0; b < n_blocks; b++) {
            const int w = GGML_TURBO_WIDE(x[b].wide, begin);
            factor[b]   = x[b].factor->u + GGML_TURBO_FACTOR_U(begin, begin);
            levels[b]   = table->levels[w][0];
            edges[b]    = turbo_load_edges(table->edges[w]);
            t[b]        = i32x8_load(x[b].t + begin);
        }
        for (int i = 0; i < 8; i += 2) {
            for (int b = 0; b < n_blocks; b++) {
                const int32_t * z  = x[b].halves + begin + i;
                const i32x8     f  = i16x16_load_i8(factor[b] + 8 * i);
                const uint32_t  c0 = turbo_count_above(t[b], i, edges[b]);
                const i32x8     e0 = i16x16_sub(i32x8_set(z[0]), i32x8_set(levels[b][c0]));
                t[b]               = i32x8_add_dot(t[b], f, e0);
                const uint32_t c1  = turbo_count_above(t[b], i + 1, edges[b]);
                const i32x8    e1  = i16x16_sub(i32x8_set(z[1]), i32x8_set(levels[b][16 + c1]));
                t[b]               = i32x8_add_dot(t[b], f, e1);

                x[b].codes[begin + i]     = (int32_t) c0;
                x[b].codes[begin + i + 1] = (int32_t) c1;
                errors[b][i / 2]          = i32x8_or(e0, e1);
            }
        }
        for (int b = 0; b < n_blocks; b++) {
            const int32_t * z     = x[b].pairs + begin;
            const i32x8     zs[4] = { i32x8_set(z[0]), i32x8_set(z[2]), i32x8_set(z[4]), i32x8_set(z[6]) };
            i32x8_store(x[b].t + begin, t[b]);
            for (int j = begin; j < QK_TURBO; j += 8) {
                const int8_t * f         = factor[b] + 8 * (j - begin);
                const i32x8    square[4] = { i16x16_load_i8(f), i16x16_load_i8(f + 16), i16x16_load_i8(f + 32),
                                             i16x16_load_i8(f + 48) };
                i32x8_store(x[b].u + j, turbo_add_square(i32x8_load(x[b].u + j), square, zs));
                if (j > begin) {
                    i32x8_store(x[b].t + j, turbo_add_square(i32x8_load(x[b].t + j), square, errors[b]));
                }
            }
        }
    }
}

// false if there is nothing to round for the step of d
static inline bool turbo_set_scores(turbo_scores *            block,
                                    const ggml_turbo_factor * factor,
                                    const float *             x,
                                    uint16_t                  d) {
    block->factor = factor;
    block->step   = kv_step(GGML_TURBO_STEP(d)) * GGML_TURBO_STEP_UNIT;
    block->wide   = d & 15;
    if (!(block->step > 0.0f)) {
        return false;
    }
    const f32x8 unit  = f32x8_set(GGML_TURBO_SCORES_UNIT / block->step);
    const f32x8 most  = f32x8_set(GGML_TURBO_SCORES_MOST);
    const f32x8 least = f32x8_set(-GGML_TURBO_SCORES_MOST);
    for (int j = 0; j < QK_TURBO; j += 8) {
        const i32x8 z = i32x8_round(f32x8_max(f32x8_min(f32x8_mul(f32x8_load(x + j), unit), most), least));
        const i32x8 h = i32x8_halves(z);
        i32x8_store(block->z + j, z);
        i32x8_store(block->halves + j, h);
        i32x8_store(block->pairs + j, i32x8_pairs(h));
        i32x8_store(block->t + j, i32x8_mul_unit(z));
        i32x8_store(block->u + j, i32x8_set(0));
    }
    return true;
}

static inline uint16_t turbo_fit_scores(const ggml_turbo_codebook * cb, const turbo_scores * block) {
    f32x8 xx = f32x8_set(0.0f), xl = xx, ll = xx;
    for (int j = 0; j < QK_TURBO; j += 8) {
        const i32x8 r  = i32x8_sub(i32x8_load(block->t + j), i32x8_mul_unit(i32x8_load(block->z + j)));
        const f32x8 u  = f32x8_from_i32(i32x8_load(block->u + j));
        const f32x8 v  = f32x8_sub(u, f32x8_from_i32(r));
        const f32x8 d  = f32x8_load(block->factor->d + j);
        const f32x8 du = f32x8_mul(d, u);
        const f32x8 dv = f32x8_mul(d, v);
        xx             = f32x8_add(xx, f32x8_mul(du, u));
        xl             = f32x8_add(xl, f32x8_mul(du, v));
        ll             = f32x8_add(ll, f32x8_mul(dv, v));
    }
    return ggml_turbo_scores_step(cb, block->step, f32x8_sum(xx), f32x8_sum(xl), f32x8_sum(ll));
}

// of up to GGML_TURBO_BESIDE blocks
static void turbo_round(const turbo_scores_table * table, int n_blocks, turbo_scores * x) {
    switch (n_blocks) {
        case 1:
            turbo_round_blocks(table, 1, x);
            break;
        case 2:
            turbo_round_blocks(table, 2, x);
            break;
        case 3:
            turbo_round_blocks(table, 3, x);
            break;
        case 4:
            turbo_round_blocks(table, 4, x);
            break;
        default:
            break;
    }
}

static inline void turbo2_pack(const int32_t * codes, block_turbo2 * y) {
    turbo_pack_2bit(codes, y->qs);
}

static inline void turbo3_pack(const int32_t * codes, block_turbo3 * y) {
    turbo_pack_2bit(codes, y->qs);
    for (int j = 0; j < QK_TURBO; j++) {
        y->qh[j / 8] |= (uint8_t) ((codes[j] >> 2) << (j % 8));
    }
}

static inline void turbo4_pack(const int32_t * codes, block_turbo4 * y) {
    for (int j = 0; j < QK_TURBO / 2; j++) {
        y->qs[j] = (uint8_t) (codes[j] | codes[j + 32] << 4);
    }
}

#    if defined(__AVX512F__) && defined(__AVX512BW__)

// Blocks of as many rows, all rounded by one factor, a lane for each: a value waits for the one before it in all lanes at once.
typedef struct {
    float   step[GGML_TURBO_LANES];
    int     wide[GGML_TURBO_LANES];
    int32_t pairs[QK_TURBO / 2][GGML_TURBO_LANES];  // of z, in halves
    int32_t t[QK_TURBO][GGML_TURBO_LANES];
    int32_t u[QK_TURBO][GGML_TURBO_LANES];
    int32_t codes[QK_TURBO / 8][GGML_TURBO_LANES];  // four bits each
    float   xx[GGML_TURBO_LANES], xl[GGML_TURBO_LANES], ll[GGML_TURBO_LANES];
} turbo_lanes;

static inline __m512i i32x16_load(const void * p) {
    return _mm512_loadu_si512(p);
}

static inline __m512i i32x16_add_dot(__m512i sum, __m512i a, __m512i b) {
#        if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(sum, a, b);
#        else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#        endif
}

// turbo_set_scores
static inline bool turbo_set_lane(turbo_lanes * x, int lane, const float * values, uint16_t d) {
    x->step[lane] = kv_step(GGML_TURBO_STEP(d)) * GGML_TURBO_STEP_UNIT;
    x->wide[lane] = d & 15;
    if (!(x->step[lane] > 0.0f)) {
        return false;
    }
    const __m512 unit  = _mm512_set1_ps(GGML_TURBO_SCORES_UNIT / x->step[lane]);
    const __m512 most  = _mm512_set1_ps(GGML_TURBO_SCORES_MOST);
    const __m512 least = _mm512_set1_ps(-GGML_TURBO_SCORES_MOST);
    int32_t      pairs[QK_TURBO / 2];
    for (int j = 0; j < QK_TURBO; j += 16) {
        const __m512 z = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(_mm512_loadu_ps(values + j), unit), most), least);
        _mm256_storeu_si256((__m256i *) &pairs[j / 2], _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(z)));
    }
    for (int i = 0; i < QK_TURBO / 2; i++) {
        x->pairs[i][lane] = pairs[i];
    }
    return true;
}

// value j of each lane
static inline __m512i turbo_lanes_z(const turbo_lanes * x, int j) {
    const __m512i pair = i32x16_load(x->pairs[j / 2]);
    return _mm512_srai_epi32(j % 2 ? pair : _mm512_slli_epi32(pair, 16), 16);
}

// how many of n edges t is above, and base
static inline __m512i turbo_lanes_count(__m512i t, const __m512i * edges, int n, __m512i base) {
    const __m512i one    = _mm512_set1_epi32(1);
    __m512i       sum[3] = { base, _mm512_setzero_si512(), _mm512_setzero_si512() };
    for (int i = 0; i < n; i++) {
        sum[i % 3] = _mm512_mask_add_epi32(sum[i % 3], _mm512_cmpgt_epi32_mask(t, edges[i]), sum[i % 3], one);
    }
    return _mm512_add_epi32(_mm512_add_epi32(sum[0], sum[1]), sum[2]);
}

// turbo_round_blocks, of 2*n levels
static inline void turbo_round_lanes(const turbo_scores_table * table,
                                     int                        n,
                                     const ggml_turbo_factor *  factor,
                                     turbo_lanes *              x) {
    int32_t pairs[sizeof(factor->u) / 2];  // of the factor, in halves
    for (size_t i = 0; i < sizeof(factor->u); i += 32) {
        _mm512_storeu_si512(&pairs[i / 2], _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *) &factor->u[i])));
    }
    const __m512i lower     = _mm512_set1_epi32(0xffff);
    const __m512i levels[2] = { i32x16_load(table->levels[0][0]), i32x16_load(table->levels[1][0]) };
    const __m512i wide      = i32x16_load(x->wide);

    for (int j = 0; j < QK_TURBO; j++) {
        const __m512i z = turbo_lanes_z(x, j);
        _mm512_storeu_si512(x->t[j], _mm512_mullo_epi32(z, _mm512_set1_epi32(GGML_TURBO_FACTOR_UNIT)));
        _mm512_storeu_si512(x->u[j], _mm512_setzero_si512());
    }
    for (int begin = 0; begin < QK_TURBO; begin += 8) {
        const __mmask16 w    = _mm512_test_epi32_mask(wide, _mm512_set1_epi32(1 << begin / (8 * N_GROUP)));
        const __m512i   base = _mm512_maskz_set1_epi32(w, 16);
        const int32_t * f    = pairs + GGML_TURBO_FACTOR_U(begin, begin) / 2;
        __m512i         edges[15];
        __m512i         t[8], z[4], e[4];
        __m512i         codes = _mm512_setzero_si512();
        for (int i = 0; i < 2 * n - 1; i++) {
            edges[i] = _mm512_mask_set1_epi32(_mm512_set1_epi32(table->edges[0][i]), w, table->edges[1][i]);
        }
        for (int i = 0; i < 8; i++) {
            t[i] = i32x16_load(x->t[begin + i]);
        }
        for (int i = 0; i < 8; i += 2) {
            const int32_t * fi = f + 4 * i;
            z[i / 2]           = i32x16_load(x->pairs[(begin + i) / 2]);

            const __m512i c0 = turbo_lanes_count(t[i], edges, 2 * n - 1, base);
            const __m512i l0 = _mm512_permutex2var_epi32(levels[0], c0, levels[1]);
            const __m512i e0 = _mm512_sub_epi16(_mm512_and_si512(z[i / 2], lower), l0);
            t[i]             = i32x16_add_dot(t[i], _mm512_set1_epi32(fi[i]), e0);
            t[i + 1]         = i32x16_add_dot(t[i + 1], _mm512_set1_epi32(fi[i + 1]), e0);

            const __m512i c1 = turbo_lanes_count(t[i + 1], edges, 2 * n - 1, base);
            const __m512i l1 = _mm512_permutex2var_epi32(levels[0], c1, levels[1]);
            const __m512i e1 = _mm512_sub_epi16(_mm512_andnot_si512(lower, z[i / 2]), _mm512_slli_epi32(l1, 16));
            t[i + 1]         = i32x16_add_dot(t[i + 1], _mm512_set1_epi32(fi[i + 1]), e1);

            e[i / 2] = _mm512_or_si512(e0, e1);
            for (int j = i + 2; j < 8; j++) {
                t[j] = i32x16_add_dot(t[j], _mm512_set1_epi32(fi[j]), e[i / 2]);
            }
            const __m512i both =
                _mm512_or_si512(_mm512_sub_epi32(c0, base), _mm512_slli_epi32(_mm512_sub_epi32(c1, base), 4));
            codes = _mm512_or_si512(codes, _mm512_sll_epi32(both, _mm_cvtsi32_si128(4 * i)));
        }
        _mm512_storeu_si512(x->codes[begin / 8], codes);
        for (int i = 0; i < 8; i++) {
            _mm512_storeu_si512(x->t[begin + i], t[i]);
        }
        for (int j = begin; j < QK_TURBO; j++) {
            const int32_t * fj = f + 32 * ((j - begin) / 8) + j % 8;
            __m512i         u  = i32x16_load(x->u[j]);
            __m512i         tj = i32x16_load(x->t[j]);
            for (int p = 0; p < 4; p++) {
                const __m512i fp = _mm512_set1_epi32(fj[8 * p]);
                u                = i32x16_add_dot(u, fp, z[p]);
                tj               = i32x16_add_dot(tj, fp, e[p]);
            }
            _mm512_storeu_si512(x->u[j], u);
            if (j >= begin + 8) {
                _mm512_storeu_si512(x->t[j], tj);
            }
        }
    }
}

// the sums of turbo_fit_scores, added in the same order
static inline void turbo_sum_lanes(const ggml_turbo_factor * factor, turbo_lanes * x) {
    __m512 sums[3][8];
    for (int l = 0; l < 8; l++) {
        __m512 xx = _mm512_setzero_ps(), xl = xx, ll = xx;
        for (int j = l; j < QK_TURBO; j += 8) {
            const __m512i z  = _mm512_mullo_epi32(turbo_lanes_z(x, j), _mm512_set1_epi32(GGML_TURBO_FACTOR_UNIT));
            const __m512i r  = _mm512_sub_epi32(i32x16_load(x->t[j]), z);
            const __m512  u  = _mm512_cvtepi32_ps(i32x16_load(x->u[j]));
            const __m512  v  = _mm512_sub_ps(u, _mm512_cvtepi32_ps(r));
            const __m512  d  = _mm512_set1_ps(factor->d[j]);
            const __m512  du = _mm512_mul_ps(d, u);
            const __m512  dv = _mm512_mul_ps(d, v);
            xx               = _mm512_add_ps(xx, _mm512_mul_ps(du, u));
            xl               = _mm512_add_ps(xl, _mm512_mul_ps(du, v));
            ll               = _mm512_add_ps(ll, _mm512_mul_ps(dv, v));
        }
        sums[0][l] = xx;
        sums[1][l] = xl;
        sums[2][l] = ll;
    }
    float * const to[3] = { x->xx, x->xl, x->ll };
    for (int i = 0; i < 3; i++) {
        __m512 * s = sums[i];
        for (int n = 4; n > 0; n /= 2) {
            for (int l = 0; l < n; l++) {
                s[l] = _mm512_add_ps(s[l], s[l + n]);
            }
        }
        _mm512_storeu_ps(to[i], s[0]);
    }
}

// the codes of a lane
static inline void turbo_lane_codes(const turbo_lanes * x, int lane, int32_t * codes) {
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    for (int j = 0; j < QK_TURBO; j += 8) {
        const __m256i c = _mm256_srlv_epi32(_mm256_set1_epi32(x->codes[j / 8][lane]), shifts);
        i32x8_store(codes + j, _mm256_and_si256(c, _mm256_set1_epi32(15)));
    }
}

// of a block of 2*n levels, which begins with its step
static inline size_t turbo_bytes(int n) {
    return n == GGML_TURBO2_N ? sizeof(block_turbo2) : n == GGML_TURBO3_N ? sizeof(block_turbo3) : sizeof(block_turbo4);
}

static inline void turbo_pack(int n, const int32_t * codes, void * y) {
    if (n == GGML_TURBO2_N) {
        turbo2_pack(codes, y);
    } else if (n == GGML_TURBO3_N) {
        turbo3_pack(codes, y);
    } else {
        turbo4_pack(codes, y);
    }
}

// of blocks that are so many apart
static inline void turbo_quantize_lanes(const ggml_turbo_codebook * cb,
                                        int                         n,
                                        const turbo_scores_table *  table,
                                        const ggml_turbo_rounding * blocks,
                                        int64_t                     apart) {
    turbo_lanes x;
    uint16_t *  to[GGML_TURBO_LANES];
    memset(x.pairs, 0, sizeof(x.pairs));
    for (int l = 0; l < GGML_TURBO_LANES; l++) {
        const ggml_turbo_rounding * block = &blocks[l * apart];

        to[l]     = block->y;
        x.wide[l] = 0;
        GGML_ASSERT(block->factor == blocks[0].factor);
        memset(block->y, 0, turbo_bytes(n));
        if (!turbo_quantize_block(cb, n, block->x, NULL, NULL, to[l]) || !turbo_set_lane(&x, l, block->x, *to[l])) {
            to[l] = NULL;
        }
    }
    turbo_round_lanes(table, n, blocks[0].factor, &x);
    turbo_sum_lanes(blocks[0].factor, &x);
    for (int l = 0; l < GGML_TURBO_LANES; l++) {
        if (to[l]) {
            const uint16_t fit = ggml_turbo_scores_step(cb, x.step[l], x.xx[l], x.xl[l], x.ll[l]);
            int32_t        codes[QK_TURBO];
            *to[l] = fit != 0 ? (uint16_t) (fit << 1 | x.wide[l]) : *to[l];
            turbo_lane_codes(&x, l, codes);
            turbo_pack(n, codes, to[l]);
        }
    }
}

// Quantizes as many of n_blocks as fill lanes, from the first one on, if the factors of each row are those of the row before:
// how many
static inline int64_t turbo_quantize_in_lanes(const ggml_turbo_codebook * cb,
                                              int                         n,
                                              const turbo_scores_table *  table,
                                              const ggml_turbo_rounding * blocks,
                                              int64_t                     n_blocks) {
    int64_t per_row = 1;
    while (per_row < n_blocks && blocks[per_row].factor != blocks[0].factor) {
        per_row++;
    }
    const int64_t n_rows = n_blocks / per_row / GGML_TURBO_LANES * GGML_TURBO_LANES;
    for (int64_t r = 0; r < n_rows; r += GGML_TURBO_LANES) {
        for (int64_t b = 0; b < per_row; b++) {
            turbo_quantize_lanes(cb, n, table, blocks + r * per_row + b, per_row);
        }
    }
    return n_rows * per_row;
}

#    else  // too few lanes to fill

static inline int64_t turbo_quantize_in_lanes(const ggml_turbo_codebook * cb,
                                              int                         n,
                                              const turbo_scores_table *  table,
                                              const ggml_turbo_rounding * blocks,
                                              int64_t                     n_blocks) {
    GGML_UNUSED(cb);
    GGML_UNUSED(n);
    GGML_UNUSED(table);
    GGML_UNUSED(blocks);
    GGML_UNUSED(n_blocks);
    return 0;
}

#    endif

#    define TURBO_QUANTIZE_ROW(N)                                                                                     \
        void quantize_row_turbo##N(const float * GGML_RESTRICT x, void * GGML_RESTRICT vy, int64_t k) {               \
            assert(k % QK_TURBO == 0);                                                                                \
                                                                                                                      \
            block_turbo##N * y = vy;                                                                                  \
            for (int64_t i = 0; i < k / QK_TURBO; i++) {                                                              \
                int32_t codes[QK_TURBO];                                                                              \
                memset(&y[i], 0, sizeof(y[i]));                                                                       \
                if (turbo_quantize_block(&ggml_turbo##N##_codebook, GGML_TURBO##N##_N, x + i * QK_TURBO, NULL, codes, \
                                         &y[i].d)) {                                                                  \
                    turbo##N##_pack(codes, &y[i]);                                                                    \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
                                                                                                                      \
        static void turbo##N##_quantize_scores(const ggml_turbo_rounding * blocks, int64_t n_blocks) {                \
            const ggml_turbo_codebook * cb    = &ggml_turbo##N##_codebook;                                            \
            const turbo_scores_table    table = turbo_table_for_scores(cb, GGML_TURBO##N##_N);                        \
                                                                                                                      \
            turbo_scores     beside[GGML_TURBO_BESIDE];                                                               \
            block_turbo##N * to[GGML_TURBO_BESIDE];                                                                   \
            int              n = 0;                                                                                   \
            for (int64_t i = turbo_quantize_in_lanes(cb, GGML_TURBO##N##_N, &table, blocks, n_blocks); i < n_blocks;  \
                 i++) {                                                                                               \
                block_turbo##N * y = blocks[i].y;                                                                     \
                memset(y, 0, sizeof(*y));                                                                             \
                if (turbo_quantize_block(cb, GGML_TURBO##N##_N, blocks[i].x, blocks[i].factor, NULL, &y->d)) {        \
                    to[n] = y;                                                                                        \
                    n += turbo_set_scores(&beside[n], blocks[i].factor, blocks[i].x, y->d);                           \
                }                                                                                                     \
                if (n < GGML_TURBO_BESIDE && i + 1 < n_blocks) {                                                      \
                    continue;                                                                                         \
                }                                                                                                     \
                turbo_round(&table, n, beside);                                                                       \
                for (int k = 0; k < n; k++) {                                                                         \
                    const uint16_t fit = turbo_fit_scores(cb, &beside[k]);                                            \
                    to[k]->d           = fit != 0 ? (uint16_t) (fit << 1 | beside[k].wide) : to[k]->d;                \
                    turbo##N##_pack(beside[k].codes, to[k]);                                                          \
                }                                                                                                     \
                n = 0;                                                                                                \
            }                                                                                                         \
        }

TURBO_QUANTIZE_ROW(2)
TURBO_QUANTIZE_ROW(3)
TURBO_QUANTIZE_ROW(4)

void quantize_turbo_scores(enum ggml_type type, const ggml_turbo_rounding * blocks, int64_t n_blocks) {
    switch (type) {
        case GGML_TYPE_TURBO2:
            turbo2_quantize_scores(blocks, n_blocks);
            break;
        case GGML_TYPE_TURBO3:
            turbo3_quantize_scores(blocks, n_blocks);
            break;
        case GGML_TYPE_TURBO4:
            turbo4_quantize_scores(blocks, n_blocks);
            break;
        default:
            GGML_ABORT("fatal error");
    }
}

#else  // portable

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo2_ref(x, y, k);
}

void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo3_ref(x, y, k);
}

void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k) {
    quantize_row_turbo4_ref(x, y, k);
}

void quantize_turbo_scores(enum ggml_type type, const ggml_turbo_rounding * blocks, int64_t n_blocks) {
    for (int64_t i = 0; i < n_blocks; i++) {
        quantize_turbo_scores_ref(type, blocks[i].x, blocks[i].y, QK_TURBO, blocks[i].factor);
    }
}

#endif

void ggml_compute_forward_turbo_set_rows(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const struct ggml_tensor * rows = dst->src[0];
    const struct ggml_tensor * idxs = dst->src[1];
    const int64_t              n    = rows->ne[1];

    const ggml_turbo_factor * factors  = dst->src[3]->data;
    const int64_t             n_blocks = rows->ne[0] / QK_TURBO;

    ggml_turbo_rounding blocks[16 * GGML_TURBO_LANES];  // lanes are filled by rows of up to 16
    int                 n_all = 0;

    GGML_ASSERT(ggml_is_turbo(dst->type) && rows->type == GGML_TYPE_F32 && rows->nb[0] == sizeof(float));

    for (int64_t i = n * params->ith / params->nth; i < n * (params->ith + 1) / params->nth; i++) {
        const char *  at = (const char *) idxs->data + i * idxs->nb[0];
        const int64_t to = idxs->type == GGML_TYPE_I64 ? *(const int64_t *) at : *(const int32_t *) at;
        GGML_ASSERT(to >= 0 && to < dst->ne[1]);

        const char * x = (const char *) rows->data + i * rows->nb[1];
        char *       y = (char *) dst->data + to * dst->nb[1];
        for (int64_t b = 0; b < n_blocks; b++) {
            blocks[n_all++] = ggml_turbo_rounding_at(dst->type, (const float *) x, y, factors, b);
            if (n_all == sizeof(blocks) / sizeof(blocks[0])) {
                quantize_turbo_scores(dst->type, blocks, n_all);
                n_all = 0;
            }
        }
    }
    quantize_turbo_scores(dst->type, blocks, n_all);
}

//
// dot products
//

#if defined(__AVX2__) && defined(__FMA__)

// sums of four products each; |levels| <= 127 and |y| <= 127, so two products fit 16 bits
static inline __m256 turbo_mul_sum(__m256i levels, const block_q8_0 * y) {
    const __m256i q  = _mm256_loadu_si256((const __m256i *) y->qs);
    const __m256i ax = _mm256_abs_epi8(levels);
    const __m256i sy = _mm256_sign_epi8(q, levels);
#    if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), ax, sy));
#    else
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(ax, sy), _mm256_set1_epi16(1)));
#    endif
}

#    define TURBO_VEC_DOT_BODY(name)                                                                                   \
        __m256 acc = _mm256_setzero_ps();                                                                              \
        for (int i = 0; i < n / QK_TURBO; i++) {                                                                       \
            const __m256i lo = name##_levels(&x[i], 0);                                                                \
            const __m256i hi = name##_levels(&x[i], 32);                                                               \
            const float   d  = kv_turbo_step(x[i].d);                                                                  \
            acc = _mm256_fmadd_ps(_mm256_set1_ps(d * kv_step(y[2 * i + 0].d)), turbo_mul_sum(lo, &y[2 * i + 0]), acc); \
            acc = _mm256_fmadd_ps(_mm256_set1_ps(d * kv_step(y[2 * i + 1].d)), turbo_mul_sum(hi, &y[2 * i + 1]), acc); \
        }                                                                                                              \
        *s = f32x8_sum(acc);

#elif defined(__ARM_NEON) && defined(__aarch64__)

static inline float32x4_t turbo_mul_sum(i8x32 levels, const block_q8_0 * y) {
    const i8x32 q = i8x32_load(y->qs);
    return vcvtq_f32_s32(
        ggml_vdotq_s32(ggml_vdotq_s32(vdupq_n_s32(0), levels.val[0], q.val[0]), levels.val[1], q.val[1]));
}

#    define TURBO_VEC_DOT_BODY(name)                                                                          \
        float32x4_t acc = vdupq_n_f32(0.0f);                                                                  \
        for (int i = 0; i < n / QK_TURBO; i++) {                                                              \
            const i8x32 lo = name##_levels(&x[i], 0);                                                         \
            const i8x32 hi = name##_levels(&x[i], 32);                                                        \
            const float d  = kv_turbo_step(x[i].d);                                                           \
            acc            = vfmaq_n_f32(acc, turbo_mul_sum(lo, &y[2 * i + 0]), d * kv_step(y[2 * i + 0].d)); \
            acc            = vfmaq_n_f32(acc, turbo_mul_sum(hi, &y[2 * i + 1]), d * kv_step(y[2 * i + 1].d)); \
        }                                                                                                     \
        *s = vaddvq_f32(acc);

#else  // portable

// dot product of one block's levels with the two q8_0 blocks beside it, in units of the turbo step
static float turbo_dot_q8_0(const int8_t * levels, const block_q8_0 * y) {
    int32_t sum[2] = { 0, 0 };
    for (int h = 0; h < 2; h++) {
        for (int j = 0; j < QK8_0; j++) {
            sum[h] += levels[h * QK8_0 + j] * y[h].qs[j];
        }
    }
    return GGML_CPU_FP16_TO_FP32(y[0].d) * (float) sum[0] + GGML_CPU_FP16_TO_FP32(y[1].d) * (float) sum[1];
}

#    define TURBO_VEC_DOT_BODY(name)                                           \
        float sumf = 0.0f;                                                     \
        for (int i = 0; i < n / QK_TURBO; i++) {                               \
            int8_t levels[QK_TURBO];                                           \
            ggml_##name##_unpack(&x[i], levels);                               \
            sumf += kv_turbo_step(x[i].d) * turbo_dot_q8_0(levels, y + 2 * i); \
        }                                                                      \
        *s = sumf;

#endif

#define TURBO_VEC_DOT(name)                                                                                   \
    void ggml_vec_dot_##name##_q8_0(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, \
                                    size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {           \
        assert(n % QK_TURBO == 0);                                                                            \
        assert(nrc == 1);                                                                                     \
        GGML_UNUSED(bs);                                                                                      \
        GGML_UNUSED(bx);                                                                                      \
        GGML_UNUSED(by);                                                                                      \
        GGML_UNUSED(nrc);                                                                                     \
        const block_##name * x = vx;                                                                          \
        const block_q8_0 *   y = vy;                                                                          \
        TURBO_VEC_DOT_BODY(name)                                                                              \
    }

TURBO_VEC_DOT(turbo2)
TURBO_VEC_DOT(turbo3)
TURBO_VEC_DOT(turbo4)
