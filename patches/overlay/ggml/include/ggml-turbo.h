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
// second moment of the 64 values of those queries. A = U*D*U^T with a unit upper triangle U, which is kept in 64ths.
typedef struct {
    float  d[64];
    int8_t u[2304];  // see GGML_TURBO_FACTOR_U
} ggml_turbo_factor;

// Of 64*64 values plus a part of their mean diagonal, the scale of which does not matter. Where they are no second moment,
// that of the unit matrix.
GGML_API void ggml_turbo_make_factor(const double * a, ggml_turbo_factor * factor);

// As ggml_set_rows, into a turbo type, rounded for scores: a row of bytes for each block of a row, its factor. For the CPU only.
GGML_API struct ggml_tensor * ggml_turbo_set_rows(struct ggml_context * ctx,
                                                  struct ggml_tensor *  a,
                                                  struct ggml_tensor *  b,
                                                  struct ggml_tensor *  c,
                                                  struct ggml_tensor *  factors);

#ifdef __cplusplus
}
#endif
