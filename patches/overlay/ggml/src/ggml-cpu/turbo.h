#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);
void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);
void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);

void ggml_vec_dot_turbo2_q8_0(int                        n,
                              float * GGML_RESTRICT      s,
                              size_t                     bs,
                              const void * GGML_RESTRICT vx,
                              size_t                     bx,
                              const void * GGML_RESTRICT vy,
                              size_t                     by,
                              int                        nrc);
void ggml_vec_dot_turbo3_q8_0(int                        n,
                              float * GGML_RESTRICT      s,
                              size_t                     bs,
                              const void * GGML_RESTRICT vx,
                              size_t                     bx,
                              const void * GGML_RESTRICT vy,
                              size_t                     by,
                              int                        nrc);
void ggml_vec_dot_turbo4_q8_0(int                        n,
                              float * GGML_RESTRICT      s,
                              size_t                     bs,
                              const void * GGML_RESTRICT vx,
                              size_t                     bx,
                              const void * GGML_RESTRICT vy,
                              size_t                     by,
                              int                        nrc);

// If dst is a MUL_MAT whose hint says that src0 is a turbo rotation, compute it with a fast transform in place of
// the matrix product and return true.
bool ggml_compute_forward_turbo_rot(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
