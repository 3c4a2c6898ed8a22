#pragma once

// Operations on the turbo cache types. Flash attention and matrix products go through upstream's functions, by conversion to
// f16 (see turbo-convert.cuh) or with the parts of turbo-fattn.cuh.

#include "common.cuh"
#include "ggml-turbo.h"

// Whether there is a kernel for an op that reads or writes a turbo type. False for anything not listed, so that nothing aborts when it runs.
bool ggml_cuda_turbo_supports_op(int device, const ggml_tensor * op);

// Runs SET_ROWS, GET_ROWS and copies between f32 and a turbo type. False: dst is something else, nothing was done.
bool ggml_cuda_turbo_compute(ggml_backend_cuda_context & ctx, ggml_tensor * dst);
