#pragma once

// Tiles of a KV cache as small integers, value = level*step, laid out as the kernels of attention read them.

#include "ggml.h"

// Keys of KV_KEY_CELLS cells stand side by side, KV_KEY_VALUES values of each: the sums of a vector's lanes are then products
// of one cell each. The bytes hold the levels plus KV_OFFSET. Values of KV_VALUE_CELLS cells are interleaved: the sums are then
// products of one value each.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#    define KV_AVX512
#    define KV_VNNI
constexpr int64_t KV_KEY_CELLS = 16, KV_KEY_VALUES = 4, KV_VALUE_CELLS = 4;
constexpr int     KV_OFFSET = 128;  // the instruction multiplies unsigned with signed bytes
#elif defined(__AVX2__) && defined(__FMA__) && defined(__AVXVNNI__) && !defined(__AVX512F__)
#    define KV_VNNI
constexpr int64_t KV_KEY_CELLS = 8, KV_KEY_VALUES = 4, KV_VALUE_CELLS = 4;
constexpr int     KV_OFFSET = 128;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int64_t KV_KEY_CELLS = 8, KV_KEY_VALUES = 4, KV_VALUE_CELLS = 4;
constexpr int     KV_OFFSET = 0;
#elif defined(__ARM_NEON) && defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)
#    define KV_I8MM
constexpr int64_t KV_KEY_CELLS = 2, KV_KEY_VALUES = 8, KV_VALUE_CELLS = 8;
constexpr int     KV_OFFSET = 0;
#elif defined(__ARM_NEON) && defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#    define KV_DOTPROD
constexpr int64_t KV_KEY_CELLS = 4, KV_KEY_VALUES = 4, KV_VALUE_CELLS = 4;
constexpr int     KV_OFFSET = 0;
#elif defined(__ARM_NEON) && defined(__aarch64__)
constexpr int64_t KV_KEY_CELLS = 2, KV_KEY_VALUES = 8, KV_VALUE_CELLS = 1;
constexpr int     KV_OFFSET = 0;
#else
constexpr int64_t KV_KEY_CELLS = 1, KV_KEY_VALUES = 32, KV_VALUE_CELLS = 1;  // what compilers make vectors of
constexpr int     KV_OFFSET = 0;
#endif

// The values of 32 stand in this order, four at a time.
#if defined(KV_AVX512)
constexpr int kv_value_order[8] = { 0, 4, 16, 20, 8, 12, 24, 28 };
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kv_value_order[8] = { 0, 16, 4, 20, 8, 24, 12, 28 };
#else
constexpr int kv_value_order[8] = { 0, 4, 8, 12, 16, 20, 24, 28 };
#endif

// Levels and steps of n values each of some rows; row rows[r] begins at base + r*nb. n is a multiple of the block size.
// steps[i/width*stride + r] is that of value i, where width is ggml_kv_step_width.
//
// keys:   the level of value i of row r is byte
//         ((r/KV_KEY_CELLS*(n/KV_KEY_VALUES) + i/KV_KEY_VALUES)*KV_KEY_CELLS + r%KV_KEY_CELLS)*KV_KEY_VALUES + i%KV_KEY_VALUES
// values: that of the i-th value in order is byte
//         (r/KV_VALUE_CELLS*n + i)*KV_VALUE_CELLS + r%KV_VALUE_CELLS; up to a multiple of 16 rows steps are 0
//
// rows ascend. Past n_rows they go on up to a multiple of 16, with rows that may be read: where rows end within cells that
// stand side by side, these fill their places.
typedef void (*ggml_kv_unpack_t)(const char *    base,
                                 size_t          nb,
                                 const int32_t * rows,
                                 int64_t         n_rows,
                                 int64_t         n,
                                 int8_t *        levels,
                                 float *         steps,
                                 int64_t         stride);

// NULL for types whose values are not of that form.
ggml_kv_unpack_t ggml_kv_get_unpack_keys(enum ggml_type type);
ggml_kv_unpack_t ggml_kv_get_unpack_values(enum ggml_type type);

// Values that share a step: 32 or 64.
int64_t ggml_kv_step_width(enum ggml_type type);
