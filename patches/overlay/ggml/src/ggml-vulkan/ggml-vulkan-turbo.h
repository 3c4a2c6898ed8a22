#pragma once

// Pipelines of the turbo cache types. ggml-vulkan.cpp includes this where its device and its shaders are declared. Rows of
// the device's tables of pipelines are all that these types need: their shaders take what every quantized type's take.

#include "ggml-turbo.h"

#define GGML_VK_FOR_EACH_TURBO(X) \
    X(GGML_TYPE_TURBO2, turbo2)   \
    X(GGML_TYPE_TURBO3, turbo3)   \
    X(GGML_TYPE_TURBO4, turbo4)

#define GGML_VK_SPV(NAME) #NAME, NAME##_len, NAME##_data

// between f32 and a turbo type
static bool ggml_vk_turbo_is_copy(ggml_type from, ggml_type to) {
    return (from == GGML_TYPE_F32 && ggml_is_turbo(to)) || (ggml_is_turbo(from) && to == GGML_TYPE_F32);
}

// whether op stores, reads or copies a turbo type by a shader of ours
static bool ggml_vk_turbo_moves(const ggml_tensor * op) {
    const ggml_tensor * from = op->src[0];
    const ggml_tensor * with = op->src[1];

    switch (op->op) {
        case GGML_OP_SET_ROWS:
            return ggml_is_turbo(op->type) && (from->type == GGML_TYPE_F32 || from->type == GGML_TYPE_F16) &&
                   (with->type == GGML_TYPE_I32 || with->type == GGML_TYPE_I64);
        case GGML_OP_GET_ROWS:
            return ggml_is_turbo(from->type);
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            return ggml_vk_turbo_is_copy(from->type, with ? with->type : from->type);
        default:
            return false;
    }
}

// Creates pipelines by `create`, ggml_vk_load_shaders' own function, where that has a loop over products of a matrix with
// n + 1 vectors. The other arguments are those of the other types' pipelines there. What is no product is made once.
template <typename F>
static void ggml_vk_turbo_load_shaders(vk_device &           device,
                                       const F &             create,
                                       uint32_t              w,
                                       uint32_t              n,
                                       shader_reduction_mode reduc,
                                       uint32_t              wg_size,
                                       uint32_t              rm,
                                       bool                  use_subgroups,
                                       uint32_t              subgroup_size) {
    const uint32_t block      = (uint32_t) ggml_blck_size(GGML_TYPE_TURBO4);
    const size_t   unary_size = sizeof(vk_op_unary_push_constants);
    const size_t   rows_size  = sizeof(vk_op_binary_push_constants);

#define GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, B)                                                                       \
    {                                                                                                                  \
        const uint64_t len[]  = { mul_mat_vec_##NAME##_##B##_f32_len, mul_mat_vec_##NAME##_##B##_f32_subgroup_len,     \
                                  mul_mat_vec_##NAME##_##B##_f32_subgroup_no_shmem_len };                              \
        const void *   data[] = { mul_mat_vec_##NAME##_##B##_f32_data, mul_mat_vec_##NAME##_##B##_f32_subgroup_data,   \
                                  mul_mat_vec_##NAME##_##B##_f32_subgroup_no_shmem_data };                             \
        create(device, device->pipeline_dequant_mul_mat_vec_##B##_f32[w][TYPE][n], "mul_mat_vec_" #NAME "_" #B "_f32", \
               len[reduc], data[reduc], "main", 5, sizeof(vk_mat_vec_push_constants), { rm, 1, 1 },                    \
               { wg_size, rm, n + 1 }, 1, true, use_subgroups, subgroup_size);                                         \
    }
#define GGML_VK_TURBO_MUL_MAT(TYPE, NAME)      \
    GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, f32) \
    GGML_VK_TURBO_MUL_MAT_VEC(TYPE, NAME, f16)

#define GGML_VK_TURBO_SET_ROWS(TYPE, NAME, SRC, SRC_IDX)                                                             \
    create(device, device->pipeline_set_rows_i32[SRC_IDX][TYPE], GGML_VK_SPV(set_rows_##SRC##_##NAME##_i32), "main", \
           3, rows_size, { 1, 1, 1 }, { 1 }, 1, true);                                                               \
    create(device, device->pipeline_set_rows_i64[SRC_IDX][TYPE], GGML_VK_SPV(set_rows_##SRC##_##NAME##_i64), "main", \
           3, rows_size, { 1, 1, 1 }, { 1 }, 1, true);

#define GGML_VK_TURBO_MOVE(TYPE, NAME)                                                                            \
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

    GGML_VK_FOR_EACH_TURBO(GGML_VK_TURBO_MUL_MAT)

    if (w == 0 && n == 0) {
        GGML_VK_FOR_EACH_TURBO(GGML_VK_TURBO_MOVE)
    }

#undef GGML_VK_TURBO_MUL_MAT_VEC
#undef GGML_VK_TURBO_MUL_MAT
#undef GGML_VK_TURBO_SET_ROWS
#undef GGML_VK_TURBO_MOVE
}
