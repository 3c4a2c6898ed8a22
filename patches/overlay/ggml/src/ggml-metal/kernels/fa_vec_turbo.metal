#include "common.h"
#include "dequantize.h"
#include "fa_vec_common.metal"

// Attention over a cache of which K, V or both are of a turbo type, for few queries. One instance for each head size: the
// types of K and V are function constants, so that any mix is a pipeline and not one more instance.
// More queries go through F16, see ggml_metal_turbo_as_f16.

constant int32_t FC_flash_attn_ext_vec_turbo_type_k [[function_constant(FC_FLASH_ATTN_EXT_VEC + 30)]];
constant int32_t FC_flash_attn_ext_vec_turbo_type_v [[function_constant(FC_FLASH_ATTN_EXT_VEC + 31)]];

// enum ggml_type, which shaders do not see
#define TURBO_TYPE_F16    1
#define TURBO_TYPE_Q4_0   2
#define TURBO_TYPE_Q4_1   3
#define TURBO_TYPE_Q5_0   6
#define TURBO_TYPE_Q5_1   7
#define TURBO_TYPE_Q8_0   8
#define TURBO_TYPE_TURBO2 GGML_TURBO2_TYPE
#define TURBO_TYPE_TURBO3 GGML_TURBO3_TYPE
#define TURBO_TYPE_TURBO4 GGML_TURBO4_TYPE

// A row of any type. The kernel takes it for one block of NL_TURBO_ROW quads, more than a head has, so that i is the
// position in the row.
typedef struct {
    uint8_t byte;
} turbo_row;

#define NL_TURBO_ROW 16384

template <typename type4> void turbo_row_quad(int32_t type, device const turbo_row * row, short i, thread type4 & reg) {
    switch (type) {
        case TURBO_TYPE_F16:    dequantize_f16_t4   ((device const half4        *) row + i,    0,    reg); break;
        case TURBO_TYPE_Q4_0:   dequantize_q4_0_t4  ((device const block_q4_0   *) row + i/8,  i%8,  reg); break;
        case TURBO_TYPE_Q4_1:   dequantize_q4_1_t4  ((device const block_q4_1   *) row + i/8,  i%8,  reg); break;
        case TURBO_TYPE_Q5_0:   dequantize_q5_0_t4  ((device const block_q5_0   *) row + i/8,  i%8,  reg); break;
        case TURBO_TYPE_Q5_1:   dequantize_q5_1_t4  ((device const block_q5_1   *) row + i/8,  i%8,  reg); break;
        case TURBO_TYPE_Q8_0:   dequantize_q8_0_t4  ((device const block_q8_0   *) row + i/8,  i%8,  reg); break;
        case TURBO_TYPE_TURBO2: dequantize_turbo2_t4((device const block_turbo2 *) row + i/16, i%16, reg); break;
        case TURBO_TYPE_TURBO3: dequantize_turbo3_t4((device const block_turbo3 *) row + i/16, i%16, reg); break;
        case TURBO_TYPE_TURBO4: dequantize_turbo4_t4((device const block_turbo4 *) row + i/16, i%16, reg); break;
    }
}

template <typename type4> void dequantize_turbo_k_t4(device const turbo_row * row, short i, thread type4 & reg) {
    turbo_row_quad(FC_flash_attn_ext_vec_turbo_type_k, row, i, reg);
}

template <typename type4> void dequantize_turbo_v_t4(device const turbo_row * row, short i, thread type4 & reg) {
    turbo_row_quad(FC_flash_attn_ext_vec_turbo_type_v, row, i, reg);
}

#define FA_TYPES \
           half4,  \
           half4,  \
           half4,  \
    float,         \
    float, float4, \
           float4

#define FA_TURBO turbo_row, NL_TURBO_ROW, dequantize_turbo_k_t4, turbo_row, NL_TURBO_ROW, dequantize_turbo_v_t4

typedef decltype(kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 128, 128, 1>) flash_attn_ext_vec_turbo_t;

// the last number is that of fa_vec_baseline_ne
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk64_dv64")]]   kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 64,  64,  2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk128_dv128")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk192_dv192")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 192, 192, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk192_dv128")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 192, 128, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk256_dv256")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk320_dv256")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 320, 256, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk512_dv512")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 512, 512, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo_dk576_dv512")]] kernel flash_attn_ext_vec_turbo_t kernel_flash_attn_ext_vec<FA_TYPES, FA_TURBO, 576, 512, 2>;

#undef FA_TYPES
#undef FA_TURBO
