#pragma once

// Operations on the turbo cache types. What they share with upstream's types goes through upstream's functions, which ask
// here first: conversion to f16 for flash attention and matrix products, and which operations there are.

#include "common.cuh"
#include "convert.cuh"
#include "ggml-turbo.h"

// whether op reads or writes a turbo type
bool ggml_cuda_turbo_involved(const ggml_tensor * op);

// Whether there is a kernel for such an op. False for anything not listed, so that nothing aborts when it runs.
bool ggml_cuda_turbo_supports_op(int device, const ggml_tensor * op);

// dst->type or dst->src[0]->type is a turbo type
void ggml_cuda_turbo_set_rows(ggml_backend_cuda_context & ctx, ggml_tensor * dst);
void ggml_cuda_turbo_get_rows(ggml_backend_cuda_context & ctx, ggml_tensor * dst);

// false: not between f32 and a turbo type, src1 is untouched
bool ggml_cuda_turbo_cpy(ggml_backend_cuda_context & ctx, const ggml_tensor * src0, ggml_tensor * src1);

// null if type is no turbo type; dst_t is float, half or nv_bfloat16
template <typename dst_t> to_t_cuda_t<dst_t> ggml_cuda_turbo_to(ggml_type type);

template <typename dst_t> to_t_nc_cuda_t<dst_t> ggml_cuda_turbo_to_nc(ggml_type type);
