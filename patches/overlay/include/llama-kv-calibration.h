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

// The same, unless that was called or LLAMA_ARG_KV_CALIBRATION is set: for programs whose default is another than "off"
LLAMA_API bool llama_kv_calibration_set_default(const char * how);

// What contexts are calibrated with now
LLAMA_API const char * llama_kv_calibration_get(void);

// Measures the model on n_tokens tokens, in sequences of n_ctx, and writes the file that
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

// Of one KV head of a layer; arrays are valid during the call
struct llama_kv_calibration_head {
    uint32_t layer;
    uint32_t head;
    uint32_t n_values;

    const float * before;  // mean squares of the values of K as they come
    const float * after;   // and as they are stored

    // by how much what quantization does to the scores becomes smaller
    float gain;
};

typedef void (*llama_kv_calibration_head_callback)(const struct llama_kv_calibration_head * head, void * user_data);

// Tells what a file, or a model that embeds one, makes of the heads of this model in contexts of params.n_ctx positions.
// Returns false after logging why.
LLAMA_API bool llama_kv_calibration_describe(struct llama_model *               model,
                                             struct llama_context_params        params,
                                             const char *                       path,
                                             llama_kv_calibration_head_callback callback,
                                             void *                             user_data);

// What a file says of itself: the model's fingerprint, the hash of the text, the tokens. False after logging why.
LLAMA_API bool llama_kv_calibration_origin(const char * path, char model[17], char text[17], uint32_t * n_tokens);

// Writes a copy of the model's file that embeds the calibration. Returns false after logging why.
LLAMA_API bool llama_kv_calibration_embed(const char * model, const char * calibration, const char * copy);

#ifdef __cplusplus
}
#endif
