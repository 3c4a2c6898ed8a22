#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

// FLASH_ATTN_EXT over a cache of which a side is quantized, or whose sides have different types: every tile of the
// cache is decoded once for all the query rows that read it.

// Bytes of work buffer that dst needs from these kernels; 0 if they do not apply to it.
size_t ggml_flash_attn_kv_work_size(const struct ggml_tensor * dst, int n_threads);

// Computes dst and returns true, or returns false if these kernels do not apply to it.
bool ggml_compute_forward_flash_attn_kv(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
