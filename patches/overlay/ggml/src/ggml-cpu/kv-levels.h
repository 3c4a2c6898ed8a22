#pragma once

// Rows of the KV cache as small integers: a block of 32 values is 32 signed bytes and one step, value = level*step.
// The types are written once, in terms of a vector of 32 bytes; what that vector is depends on the CPU.

#include "../ggml-turbo-impl.h"
#include "ggml-cpu-impl.h"
#include "simd-mappings.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include <string.h>

// Asks memory for the line of a byte that is read soon; until then it would have nothing to do.
static inline void kv_ask_for(const void * p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    GGML_UNUSED(p);
#endif
}

#if defined(__AVX2__)

typedef __m256i i8x32;

static inline i8x32 i8x32_load(const void * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

static inline void i8x32_store(void * p, i8x32 v) {
    _mm256_storeu_si256((__m256i *) p, v);
}

static inline i8x32 i8x32_or(i8x32 a, i8x32 b) {
    return _mm256_or_si256(a, b);
}

static inline i8x32 i8x32_sub(i8x32 v, int8_t x) {
    return _mm256_sub_epi8(v, _mm256_set1_epi8(x));
}

// (v >> shift) & mask
static inline i8x32 i8x32_field(i8x32 v, int shift, int8_t mask) {
    return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8(mask));
}

// (q >> lo) & mask of 16 bytes, then (q >> hi) & mask of the same
static inline i8x32 i8x32_fields(const uint8_t * q, int lo, int hi, int8_t mask) {
    const __m128i v = _mm_loadu_si128((const __m128i *) q);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(v, hi), _mm_srli_epi16(v, lo)), _mm256_set1_epi8(mask));
}

// x where the bit is set, 0 elsewhere
static inline i8x32 i8x32_bits(const uint8_t * bits, int8_t x) {
    uint32_t b;
    memcpy(&b, bits, sizeof(b));
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i mask = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    const __m256i v    = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int) b), byte), mask);
    return _mm256_and_si256(_mm256_cmpeq_epi8(v, mask), _mm256_set1_epi8(x));
}

// the first 16 values index the first 16 entries, the others the last 16
static inline i8x32 i8x32_lookup(i8x32 index, const int8_t * table) {
    return _mm256_shuffle_epi8(i8x32_load(table), index);
}

static inline void i8x32_to_float(i8x32 v, float d, float * y) {
    for (int h = 0; h < 2; h++) {
        const __m128i half = h == 0 ? _mm256_castsi256_si128(v) : _mm256_extracti128_si256(v, 1);
        const __m256  a    = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(half));
        const __m256  b    = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(half, 8)));
        _mm256_storeu_ps(y + 16 * h, _mm256_mul_ps(a, _mm256_set1_ps(d)));
        _mm256_storeu_ps(y + 16 * h + 8, _mm256_mul_ps(b, _mm256_set1_ps(d)));
    }
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

typedef int8x16x2_t i8x32;

static inline i8x32 i8x32_load(const void * p) {
    return vld1q_s8_x2((const int8_t *) p);
}

static inline void i8x32_store(void * p, i8x32 v) {
    vst1q_s8((int8_t *) p, v.val[0]);
    vst1q_s8((int8_t *) p + 16, v.val[1]);
}

static inline i8x32 i8x32_or(i8x32 a, i8x32 b) {
    a.val[0] = vorrq_s8(a.val[0], b.val[0]);
    a.val[1] = vorrq_s8(a.val[1], b.val[1]);
    return a;
}

static inline i8x32 i8x32_sub(i8x32 v, int8_t x) {
    v.val[0] = vsubq_s8(v.val[0], vdupq_n_s8(x));
    v.val[1] = vsubq_s8(v.val[1], vdupq_n_s8(x));
    return v;
}

static inline int8x16_t i8x16_field(uint8x16_t v, int shift, int8_t mask) {
    return vandq_s8(vreinterpretq_s8_u8(vshlq_u8(v, vdupq_n_s8((int8_t) -shift))), vdupq_n_s8(mask));
}

static inline i8x32 i8x32_field(i8x32 v, int shift, int8_t mask) {
    v.val[0] = i8x16_field(vreinterpretq_u8_s8(v.val[0]), shift, mask);
    v.val[1] = i8x16_field(vreinterpretq_u8_s8(v.val[1]), shift, mask);
    return v;
}

static inline i8x32 i8x32_fields(const uint8_t * q, int lo, int hi, int8_t mask) {
    const uint8x16_t v = vld1q_u8(q);
    i8x32            r;
    r.val[0] = i8x16_field(v, lo, mask);
    r.val[1] = i8x16_field(v, hi, mask);
    return r;
}

static inline i8x32 i8x32_bits(const uint8_t * bits, int8_t x) {
    const uint8x16_t mask = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    i8x32            r;
    for (int h = 0; h < 2; h++) {
        const uint8x16_t v = vcombine_u8(vdup_n_u8(bits[2 * h]), vdup_n_u8(bits[2 * h + 1]));
        r.val[h]           = vandq_s8(vreinterpretq_s8_u8(vtstq_u8(v, mask)), vdupq_n_s8(x));
    }
    return r;
}

static inline i8x32 i8x32_lookup(i8x32 index, const int8_t * table) {
    index.val[0] = vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s8(index.val[0]));
    index.val[1] = vqtbl1q_s8(vld1q_s8(table + 16), vreinterpretq_u8_s8(index.val[1]));
    return index;
}

static inline void i8x32_to_float(i8x32 v, float d, float * y) {
    for (int h = 0; h < 2; h++) {
        const int16x8_t a = vmovl_s8(vget_low_s8(v.val[h]));
        const int16x8_t b = vmovl_s8(vget_high_s8(v.val[h]));
        vst1q_f32(y + 16 * h, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), d));
        vst1q_f32(y + 16 * h + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(a))), d));
        vst1q_f32(y + 16 * h + 8, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(b))), d));
        vst1q_f32(y + 16 * h + 12, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(b))), d));
    }
}

#else

typedef struct {
    int8_t v[32];
} i8x32;

static inline i8x32 i8x32_load(const void * p) {
    i8x32 r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
}

static inline void i8x32_store(void * p, i8x32 v) {
    memcpy(p, v.v, sizeof(v.v));
}

static inline i8x32 i8x32_or(i8x32 a, i8x32 b) {
    for (int j = 0; j < 32; j++) {
        a.v[j] |= b.v[j];
    }
    return a;
}

static inline i8x32 i8x32_sub(i8x32 v, int8_t x) {
    for (int j = 0; j < 32; j++) {
        v.v[j] = (int8_t) (v.v[j] - x);
    }
    return v;
}

static inline i8x32 i8x32_field(i8x32 v, int shift, int8_t mask) {
    for (int j = 0; j < 32; j++) {
        v.v[j] = (int8_t) (((uint8_t) v.v[j] >> shift) & mask);
    }
    return v;
}

static inline i8x32 i8x32_fields(const uint8_t * q, int lo, int hi, int8_t mask) {
    i8x32 r;
    for (int j = 0; j < 16; j++) {
        r.v[j]      = (int8_t) ((q[j] >> lo) & mask);
        r.v[j + 16] = (int8_t) ((q[j] >> hi) & mask);
    }
    return r;
}

static inline i8x32 i8x32_bits(const uint8_t * bits, int8_t x) {
    i8x32 r;
    for (int j = 0; j < 32; j++) {
        r.v[j] = (bits[j / 8] >> (j % 8)) & 1 ? x : 0;
    }
    return r;
}

static inline i8x32 i8x32_lookup(i8x32 index, const int8_t * table) {
    for (int j = 0; j < 32; j++) {
        index.v[j] = table[j / 16 * 16 + index.v[j]];
    }
    return index;
}

static inline void i8x32_to_float(i8x32 v, float d, float * y) {
    for (int j = 0; j < 32; j++) {
        y[j] = (float) v.v[j] * d;
    }
}

#endif

//
// blocks
//

// the table behind GGML_CPU_FP16_TO_FP32 would push everything else out of the L1 cache
static inline float kv_step(uint16_t d) {
#if defined(__F16C__)
    return _cvtsh_ss(d);
#else
    return GGML_CPU_FP16_TO_FP32(d);
#endif
}

static inline float kv_turbo_step(uint16_t d) {
    return kv_step(GGML_TURBO_STEP(d)) * GGML_TURBO_STEP_UNIT;
}

// Tables for 32 values: a table of 16 for each half, one pair for each of the four choices of two groups.
// clang-format off
#define KV_NARROW(N)  { GGML_TURBO##N##_NARROW(GGML_TURBO##N##_LEVELS) }
#define KV_WIDE(N)    { GGML_TURBO##N##_WIDE(GGML_TURBO##N##_LEVELS) }
#define KV_CHOICES(N) { { KV_NARROW(N), KV_NARROW(N) }, { KV_WIDE(N), KV_NARROW(N) }, \
                        { KV_NARROW(N), KV_WIDE(N)   }, { KV_WIDE(N), KV_WIDE(N)   } }
// clang-format on

static const int8_t kv_table_turbo2[4][2][16] = KV_CHOICES(2);
static const int8_t kv_table_turbo3[4][2][16] = KV_CHOICES(3);
static const int8_t kv_table_turbo4[4][2][16] = KV_CHOICES(4);
static const int8_t kv_table_iq4_nl[32]       = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

static inline i8x32 q8_0_levels(const block_q8_0 * x) {
    return i8x32_load(x->qs);
}

static inline i8x32 q5_0_levels(const block_q5_0 * x) {
    return i8x32_sub(i8x32_or(i8x32_fields(x->qs, 0, 4, 15), i8x32_bits(x->qh, 16)), 16);
}

static inline i8x32 q4_0_levels(const block_q4_0 * x) {
    return i8x32_sub(i8x32_fields(x->qs, 0, 4, 15), 8);
}

static inline i8x32 iq4_nl_levels(const block_iq4_nl * x) {
    return i8x32_lookup(i8x32_fields(x->qs, 0, 4, 15), kv_table_iq4_nl);
}

// values first..first + 31 of a block, where first is 0 or 32
static inline i8x32 turbo_lookup(i8x32 codes, const int8_t tables[4][2][16], uint16_t d, int first) {
    return i8x32_lookup(codes, tables[(d >> first / GGML_TURBO_GROUP) & 3][0]);
}

static inline i8x32 turbo_low_bits(const uint8_t * qs, int first) {
    return i8x32_fields(qs, GGML_TURBO2_BIT(first), GGML_TURBO2_BIT(first + GGML_TURBO_GROUP), 3);
}

static inline i8x32 turbo2_levels(const block_turbo2 * x, int first) {
    return turbo_lookup(turbo_low_bits(x->qs, first), kv_table_turbo2, x->d, first);
}

static inline i8x32 turbo3_levels(const block_turbo3 * x, int first) {
    const i8x32 codes = i8x32_or(turbo_low_bits(x->qs, first), i8x32_bits(x->qh + first / 8, 4));
    return turbo_lookup(codes, kv_table_turbo3, x->d, first);
}

static inline i8x32 turbo4_levels(const block_turbo4 * x, int first) {
    return turbo_lookup(i8x32_field(i8x32_load(x->qs), GGML_TURBO4_BIT(first), 15), kv_table_turbo4, x->d, first);
}
