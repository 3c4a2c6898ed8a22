#pragma once

// convert.cu includes this first. The functions that everybody calls look for a turbo type; what convert.cu defines by their
// names are those for upstream's types.

#include "convert.cuh"
#include "ggml-turbo.h"

#define TURBO_CONVERSION(NAME)                                                                   \
    to_##NAME##_t ggml_turbo_to_##NAME(ggml_type type);                                          \
    to_##NAME##_t ggml_upstream_to_##NAME(ggml_type type);                                       \
    to_##NAME##_t ggml_get_to_##NAME(ggml_type type) {                                           \
        return ggml_is_turbo(type) ? ggml_turbo_to_##NAME(type) : ggml_upstream_to_##NAME(type); \
    }

TURBO_CONVERSION(fp32_cuda)
TURBO_CONVERSION(fp16_cuda)
TURBO_CONVERSION(bf16_cuda)
TURBO_CONVERSION(fp32_nc_cuda)
TURBO_CONVERSION(fp16_nc_cuda)
TURBO_CONVERSION(bf16_nc_cuda)

#define ggml_get_to_fp32_cuda    ggml_upstream_to_fp32_cuda
#define ggml_get_to_fp16_cuda    ggml_upstream_to_fp16_cuda
#define ggml_get_to_bf16_cuda    ggml_upstream_to_bf16_cuda
#define ggml_get_to_fp32_nc_cuda ggml_upstream_to_fp32_nc_cuda
#define ggml_get_to_fp16_nc_cuda ggml_upstream_to_fp16_nc_cuda
#define ggml_get_to_bf16_nc_cuda ggml_upstream_to_bf16_nc_cuda
