#pragma once

#include "ggml-turbo.h"
#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

void quantize_row_turbo2(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);
void quantize_row_turbo3(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);
void quantize_row_turbo4(const float * GGML_RESTRICT x, void * GGML_RESTRICT y, int64_t k);

// Blocks that are rounded for scores beside each other, and how many rows of them at once where the CPU has the lanes
#define GGML_TURBO_BESIDE 4
#define GGML_TURBO_LANES  16

// a block to be rounded for scores: 64 values, and where it goes
typedef struct {
    const float *             x;
    void *                    y;
    const ggml_turbo_factor * factor;
} ggml_turbo_rounding;

// block b of a row
static inline ggml_turbo_rounding ggml_turbo_rounding_at(enum ggml_type            type,
                                                         const float *             x,
                                                         void *                    y,
                                                         const ggml_turbo_factor * factors,
                                                         int64_t                   b) {
    const ggml_turbo_rounding block = { x + b * ggml_blck_size(type), (char *) y + b * (int64_t) ggml_type_size(type),
                                        factors + b };
    return block;
}

// as quantize_turbo_scores_ref of ggml-turbo-impl.h: with AVX2 and on ARM with its bits
void quantize_turbo_scores(enum ggml_type type, const ggml_turbo_rounding * blocks, int64_t n_blocks);

// ggml_turbo_set_rows
void ggml_compute_forward_turbo_set_rows(const struct ggml_compute_params * params, struct ggml_tensor * dst);

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

// a row of ggml-cpu.c's table of types
#define GGML_TURBO_TYPE_TRAITS_CPU(bits)                 \
    {                                                    \
        .from_float   = quantize_row_turbo##bits,        \
        .vec_dot      = ggml_vec_dot_turbo##bits##_q8_0, \
        .vec_dot_type = GGML_TYPE_Q8_0,                  \
        .nrows        = 1,                               \
    }

#ifdef __cplusplus
}
#endif
