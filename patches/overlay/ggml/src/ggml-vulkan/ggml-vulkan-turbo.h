#pragma once

// Pipelines of the turbo cache types. ggml-vulkan.cpp includes this where its device and its shaders are declared. Rows of
// the device's tables of pipelines are all that these types need: their shaders take what every quantized type's take.

#include "ggml-turbo.h"

#define GGML_VK_FOR_EACH_TURBO(X) \
    X(GGML_TYPE_TURBO2, turbo2)   \
    X(GGML_TYPE_TURBO3, turbo3)   \
    X(GGML_TYPE_TURBO4, turbo4)

#define GGML_VK_SPV(NAME) #NAME, NAME##_len, NAME##_data

// create: ggml_vk_load_shaders' own function for one pipeline
template <typename F> static void ggml_vk_turbo_load_shaders(vk_device & device, const F & create) {
    const uint32_t block      = (uint32_t) ggml_blck_size(GGML_TYPE_TURBO4);
    const size_t   unary_size = sizeof(vk_op_unary_push_constants);
    const size_t   rows_size  = sizeof(vk_op_binary_push_constants);

#define GGML_VK_TURBO_SET_ROWS(TYPE, NAME, SRC, SRC_IDX)                                                             \
    create(device, device->pipeline_set_rows_i32[SRC_IDX][TYPE], GGML_VK_SPV(set_rows_##SRC##_##NAME##_i32), "main", \
           3, rows_size, { 1, 1, 1 }, { 1 }, 1, true);                                                               \
    create(device, device->pipeline_set_rows_i64[SRC_IDX][TYPE], GGML_VK_SPV(set_rows_##SRC##_##NAME##_i64), "main", \
           3, rows_size, { 1, 1, 1 }, { 1 }, 1, true);

#define GGML_VK_TURBO(TYPE, NAME)                                                                                 \
    GGML_VK_TURBO_SET_ROWS(TYPE, NAME, f32, 0)                                                                    \
    GGML_VK_TURBO_SET_ROWS(TYPE, NAME, f16, 1)                                                                    \
    create(device, device->pipeline_cpy_f32_quant[TYPE], GGML_VK_SPV(cpy_f32_##NAME), "main", 2, unary_size,      \
           { 32, 1, 1 }, {}, 1);                                                                                  \
    create(device, device->pipeline_cpy_quant_f32[TYPE], GGML_VK_SPV(cpy_##NAME##_f32), "main", 2, unary_size,    \
           { block, 1, 1 }, {}, 1);                                                                               \
    create(device, device->pipeline_dequant[TYPE], GGML_VK_SPV(dequant_##NAME), "main", 2, 5 * sizeof(uint32_t),  \
           { 256 * 16, 1, 1 }, {}, 1);                                                                            \
    create(device, device->pipeline_get_rows[TYPE], GGML_VK_SPV(get_rows_##NAME), "main", 3, rows_size,           \
           { 1024, 1, 1 }, {}, 1);                                                                                \
    create(device, device->pipeline_get_rows_f32[TYPE], GGML_VK_SPV(get_rows_##NAME##_f32), "main", 3, rows_size, \
           { 1024, 1, 1 }, {}, 1);

    GGML_VK_FOR_EACH_TURBO(GGML_VK_TURBO)

#undef GGML_VK_TURBO
#undef GGML_VK_TURBO_SET_ROWS
}

// matrix times n_cols vectors; the other arguments are those of the other types' pipelines in the same place
template <typename F>
static void ggml_vk_turbo_load_mul_mat_vec(vk_device &           device,
                                           const F &             create,
                                           uint32_t              w,
                                           uint32_t              n_cols,
                                           shader_reduction_mode reduc,
                                           uint32_t              wg_size,
                                           uint32_t              rm,
                                           bool                  use_subgroups,
                                           uint32_t              subgroup_size) {
#define GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, B)                                                                     \
    {                                                                                                                \
        const uint64_t len[]  = { mul_mat_vec_##NAME##_##B##_f32_len, mul_mat_vec_##NAME##_##B##_f32_subgroup_len,   \
                                  mul_mat_vec_##NAME##_##B##_f32_subgroup_no_shmem_len };                            \
        const void *   data[] = { mul_mat_vec_##NAME##_##B##_f32_data, mul_mat_vec_##NAME##_##B##_f32_subgroup_data, \
                                  mul_mat_vec_##NAME##_##B##_f32_subgroup_no_shmem_data };                           \
        create(device, device->pipeline_dequant_mul_mat_vec_##B##_f32[w][TYPE][n_cols - 1],                          \
               "mul_mat_vec_" #NAME "_" #B "_f32", len[reduc], data[reduc], "main", 5,                               \
               sizeof(vk_mat_vec_push_constants), { rm, 1, 1 }, { wg_size, rm, n_cols }, 1, true, use_subgroups,     \
               subgroup_size);                                                                                       \
    }
#define GGML_VK_TURBO(TYPE, NAME)              \
    GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, f32) \
    GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, f16)

    GGML_VK_FOR_EACH_TURBO(GGML_VK_TURBO)

#undef GGML_VK_TURBO
#undef GGML_VK_TURBO_MUL_MAT_VEC
}
