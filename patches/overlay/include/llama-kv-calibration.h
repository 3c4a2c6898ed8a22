#pragma once

// Calibration of a quantized KV cache. For each layer and KV head, the rows of K are stored as (K - m) * s and queries
// are multiplied by 1/s: attention computes the same scores, because softmax does not see what all cells of a query have
// in common, but far less is lost in quantization. See llama_kv_calibration_set() for where m and s come from.

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How contexts created from now on calibrate their K cache, process-wide:
//   "off"   not at all; this is what a program gets that never calls this, unless LLAMA_ARG_KV_CALIBRATION says otherwise
//   "auto"  if K is quantized: what the model file holds; else <model>.kvcal.gguf beside it; else what an earlier start
//           has kept in llama.cpp's cache folder; else measured now on a built-in text, and kept there
//   a path  that file, whatever the type of K. The model must be the one that it was measured on; other models in the
//           same process (a draft model) are served as with "auto"
// Returns false if how is null or empty.
LLAMA_API bool llama_kv_calibration_set(const char * how);

// What contexts are calibrated with now
LLAMA_API const char * llama_kv_calibration_get(void);

// Measures K and Q of the model on n_tokens tokens, in sequences of n_ctx, and writes the file that
// llama_kv_calibration_set() takes. params: as for the contexts to serve; types and sizes in it are ignored. progress
// may be null; it gets values up to 1 and ends the work by returning false. Returns false after logging why.
LLAMA_API bool llama_kv_calibration_create(struct llama_model *        model,
                                           struct llama_context_params params,
                                           const llama_token *         tokens,
                                           size_t                      n_tokens,
                                           uint32_t                    n_ctx,
                                           const char *                path,
                                           llama_progress_callback     progress,
                                           void *                      progress_user_data);

#ifdef __cplusplus
}
#endif
