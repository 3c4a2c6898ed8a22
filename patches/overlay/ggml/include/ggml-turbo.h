#pragma once

// TurboQuant cache types: blocks of 64 values, one fp16 scale, a fixed Lloyd-Max codebook with integer levels.
//
// The codec is an ordinary ggml codec. It is meant for vectors whose coordinates look Gaussian, so whoever stores
// attention heads rotates them first with the turbo rotation R = H*D: a fixed sign flip D, an elementwise product, then
// an orthonormal Walsh-Hadamard transform H, a matrix product with GGML_HINT_SRC0_IS_HADAMARD. R is not the plain H that
// llama.cpp applies to the heads of other caches, so both can be applied to the same head without cancelling.

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// widest turbo rotation; the sign table has this many entries
#define GGML_TURBO_ROT_MAX 256

// raised when the signs or the widths change, up to 127: saved states hold rows that were rotated with them
#define GGML_TURBO_ROT_REVISION 1

GGML_API bool ggml_is_turbo(enum ggml_type type);

// whether op reads or writes a turbo type
GGML_API bool ggml_turbo_involved(const struct ggml_tensor * op);

// +1.0f or -1.0f: the sign flip of coordinate i, 0 <= i < GGML_TURBO_ROT_MAX
GGML_API float ggml_turbo_sign(int64_t i);

// widest turbo rotation for vectors of n values: the largest power of two that divides n, at most GGML_TURBO_ROT_MAX
GGML_API int64_t ggml_turbo_rot_width(int64_t n);

// Rounding for scores: what a rounding error e of a block of K does to the scores of queries is e^T*A*e, where A is the
// second moment of the 64 values of those queries. A = U*D*U^T with a unit upper triangle U is kept as floats: what is right
// of the diagonal of U, row by row, and D; the last eight are there for vectors that reach further. The factors of a row's
// blocks are kept in groups of eight, or of all if there are fewer, whose floats stand side by side: with n blocks in a group,
// float i of block b is at (b/n*FACTOR + i)*n + b%n.
#define GGML_TURBO_FACTOR       (63 * 64 / 2 + 64 + 8)
#define GGML_TURBO_FACTOR_GROUP 8

// blocks of a group, of a row of n_blocks
GGML_API int64_t ggml_turbo_factor_group(int64_t n_blocks);

// Sets the factor of a block: that of 64*64 values plus a part of their mean diagonal, the scale of which does not matter.
// Where they are no second moment, that of the unit matrix.
GGML_API void ggml_turbo_factor(const double * a, float * factors, int64_t block, int64_t n_blocks);

// As ggml_set_rows, into a turbo type, rounded for scores: a row of factors for each group of blocks. For the CPU only.
GGML_API struct ggml_tensor * ggml_turbo_set_rows(struct ggml_context * ctx,
                                                  struct ggml_tensor *  a,
                                                  struct ggml_tensor *  b,
                                                  struct ggml_tensor *  c,
                                                  struct ggml_tensor *  factors);

#ifdef __cplusplus
}
#endif
