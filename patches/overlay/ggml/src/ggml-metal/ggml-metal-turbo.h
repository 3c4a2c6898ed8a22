#pragma once

// Turbo cache types on Metal: what is supported, and what the host does for them beyond what it does for other types.

#include "ggml-metal-device.h"

#ifdef __cplusplus
extern "C" {
#endif

// whether op reads or writes a turbo type; then ggml_metal_turbo_supports_op alone decides on it
bool ggml_metal_turbo_is_involved(const struct ggml_tensor * op);

bool ggml_metal_turbo_supports_op(const struct ggml_metal_device_props * props, const struct ggml_tensor * op);

// whether op is FLASH_ATTN_EXT over a turbo K, a turbo V or both
bool ggml_metal_turbo_is_attention(const struct ggml_tensor * op);

// SET_ROWS or CPY from F32; idx are the indices of SET_ROWS
int ggml_metal_turbo_quantize(ggml_metal_library_t        lib,
                              ggml_metal_encoder_t        enc,
                              const struct ggml_tensor *  op,
                              struct ggml_metal_buffer_id src,
                              struct ggml_metal_buffer_id idx,
                              struct ggml_metal_buffer_id dst);

// a K or V with its strides
struct ggml_metal_turbo_kv {
    struct ggml_metal_buffer_id bid;
    uint64_t                    nb[4];
};

// K or V as F16: kv itself, which is at src, or decoded to contiguous F16 at dst
struct ggml_metal_turbo_kv ggml_metal_turbo_as_f16(ggml_metal_library_t        lib,
                                                   ggml_metal_encoder_t        enc,
                                                   const struct ggml_tensor *  kv,
                                                   struct ggml_metal_buffer_id src,
                                                   struct ggml_metal_buffer_id dst);

// The attention kernel for few queries: one for all types of K and V, which are function constants.
// Make name, that of the pipeline, tell of them.
void ggml_metal_turbo_attention_name(const struct ggml_tensor * op, char * name, size_t size);
void ggml_metal_turbo_attention_constants(const struct ggml_tensor * op, ggml_metal_cv_t cv);

#ifdef __cplusplus
}
#endif
