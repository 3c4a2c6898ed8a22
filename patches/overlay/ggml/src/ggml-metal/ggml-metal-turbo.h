#pragma once

// Turbo cache types on Metal: what is supported, and what the host does for them beyond what it does for other types.

#include "ggml-metal-device.h"
#include "ggml-turbo-tables.h"
#include "ggml-turbo.h"

#ifdef __cplusplus
extern "C" {
#endif

// alone decides on an op that reads or writes a turbo type
bool ggml_metal_turbo_supports_op(const struct ggml_metal_device_props * props, const struct ggml_tensor * op);

// whether op is FLASH_ATTN_EXT over a turbo K, a turbo V or both
bool ggml_metal_turbo_is_attention(const struct ggml_tensor * op);

// SET_ROWS or a copy from F32 to a turbo type; buffer says where a tensor is
void ggml_metal_turbo_quantize(ggml_metal_library_t       lib,
                               ggml_metal_encoder_t       enc,
                               const struct ggml_tensor * op,
                               struct ggml_metal_buffer_id (*buffer)(const struct ggml_tensor * t));

struct ggml_metal_turbo_strides {
    uint64_t * nb[4];
};

// Where a K or V is that shall be F16, and its strides: as they are if it is not quantized, otherwise those of its decoded
// values, which are put at dst.
void ggml_metal_turbo_as_f16(ggml_metal_library_t            lib,
                             ggml_metal_encoder_t            enc,
                             const struct ggml_tensor *      kv,
                             struct ggml_metal_buffer_id     dst,
                             struct ggml_metal_buffer_id *   bid,
                             struct ggml_metal_turbo_strides strides);

// The attention kernel for few queries: one for all types of K and V, which are function constants. Let base, the name of the
// kernel, and name, that of the pipeline, tell of them.
void ggml_metal_turbo_attention_name(const struct ggml_tensor * op, char * base, char * name, size_t size);
void ggml_metal_turbo_attention_constants(const struct ggml_tensor * op, ggml_metal_cv_t cv);

#ifdef __cplusplus
}
#endif
