#pragma once

// Turbo cache types: decoders, and the instances of upstream's kernel templates that read them.
// ../ggml-turbo.c is the definition. Follows dequantize.h.

#if !defined(GGML_METAL_EMBED_LIBRARY)
#    include "ggml-turbo-tables.h"
#endif

#define NL_TURBO 4  // parts of 16 values in a block; each part has its choice of table

constexpr constant static float turbo2_levels[2][4]  = GGML_TURBO_LEVELS(2);
constexpr constant static float turbo3_levels[2][8]  = GGML_TURBO_LEVELS(3);
constexpr constant static float turbo4_levels[2][16] = GGML_TURBO_LEVELS(4);

// An fp16 divided by 64. Made of integers: a GPU may flush denormals, of which the fp16 can be one.
static inline float turbo_step(uint16_t d) {
    const uint32_t h = GGML_TURBO_STEP(d);
    return h < 0x400 ? (float) h * 9.31322574615478515625e-10f :
                       as_type<float>((h << 13) + (h < 0x7c00 ? 0x35000000u : 0x70000000u));
}

// The 4 values from 4*i on. Step and level have 8 and 7 bits, so that their product is exact.

template <typename type4> void dequantize_turbo2_t4(const device block_turbo2 * xb, short i, thread type4 & reg) {
    const short    j = 4 * i;
    const uint16_t d = xb->d;

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        levels[k] = turbo2_levels[GGML_TURBO_WIDE(d, j)][(xb->qs[GGML_TURBO2_BYTE(j) + k] >> GGML_TURBO2_BIT(j)) & 3];
    }
    reg = (type4) (levels * turbo_step(d));
}

template <typename type4> void dequantize_turbo3_t4(const device block_turbo3 * xb, short i, thread type4 & reg) {
    const short    j  = 4 * i;
    const uint16_t d  = xb->d;
    const short    hi = xb->qh[j / 8] >> (j % 8);

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        const short lo = (xb->qs[GGML_TURBO2_BYTE(j) + k] >> GGML_TURBO2_BIT(j)) & 3;
        levels[k]      = turbo3_levels[GGML_TURBO_WIDE(d, j)][lo | (((hi >> k) & 1) << 2)];
    }
    reg = (type4) (levels * turbo_step(d));
}

template <typename type4> void dequantize_turbo4_t4(const device block_turbo4 * xb, short i, thread type4 & reg) {
    const short    j = 4 * i;
    const uint16_t d = xb->d;

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        levels[k] = turbo4_levels[GGML_TURBO_WIDE(d, j)][(xb->qs[GGML_TURBO4_BYTE(j) + k] >> GGML_TURBO4_BIT(j)) & 15];
    }
    reg = (type4) (levels * turbo_step(d));
}

// the 16 values of part il
#define TURBO_DEQUANTIZE(name)                                                               \
    template <typename type4x4>                                                              \
    void dequantize_##name(device const block_##name * xb, short il, thread type4x4 & reg) { \
        float4x4 reg_f;                                                                      \
        for (short k = 0; k < 4; ++k) {                                                      \
            float4 quad;                                                                     \
            dequantize_##name##_t4(xb, 4 * il + k, quad);                                    \
            reg_f[k] = quad;                                                                 \
        }                                                                                    \
        reg = (type4x4) reg_f;                                                               \
    }

TURBO_DEQUANTIZE(turbo2)
TURBO_DEQUANTIZE(turbo3)
TURBO_DEQUANTIZE(turbo4)

// clang-format off

// in quantize.metal
#define TURBO_QUANTIZE_INSTANCES \
template [[host_name("kernel_get_rows_turbo2")]] kernel get_rows_q_t kernel_get_rows_q<block_turbo2, NL_TURBO, dequantize_turbo2>; \
template [[host_name("kernel_get_rows_turbo3")]] kernel get_rows_q_t kernel_get_rows_q<block_turbo3, NL_TURBO, dequantize_turbo3>; \
template [[host_name("kernel_get_rows_turbo4")]] kernel get_rows_q_t kernel_get_rows_q<block_turbo4, NL_TURBO, dequantize_turbo4>; \
template [[host_name("kernel_cpy_turbo2_f32")]] kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_turbo2, NL_TURBO, dequantize_turbo2>; \
template [[host_name("kernel_cpy_turbo3_f32")]] kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_turbo3, NL_TURBO, dequantize_turbo3>; \
template [[host_name("kernel_cpy_turbo4_f32")]] kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_turbo4, NL_TURBO, dequantize_turbo4>; \
template [[host_name("kernel_cpy_turbo2_f16")]] kernel cpy_q_f_t kernel_cpy_q_f32<half4x4, block_turbo2, NL_TURBO, dequantize_turbo2>; \
template [[host_name("kernel_cpy_turbo3_f16")]] kernel cpy_q_f_t kernel_cpy_q_f32<half4x4, block_turbo3, NL_TURBO, dequantize_turbo3>; \
template [[host_name("kernel_cpy_turbo4_f16")]] kernel cpy_q_f_t kernel_cpy_q_f32<half4x4, block_turbo4, NL_TURBO, dequantize_turbo4>;

// in fa_aux.metal
#define TURBO_FA_AUX_INSTANCES \
template [[host_name("kernel_flash_attn_ext_kv_turbo2_f16")]] kernel kernel_flash_attn_ext_kv_f16_t kernel_flash_attn_ext_kv_f16<block_turbo2, QK_TURBO, dequantize_turbo2>; \
template [[host_name("kernel_flash_attn_ext_kv_turbo3_f16")]] kernel kernel_flash_attn_ext_kv_f16_t kernel_flash_attn_ext_kv_f16<block_turbo3, QK_TURBO, dequantize_turbo3>; \
template [[host_name("kernel_flash_attn_ext_kv_turbo4_f16")]] kernel kernel_flash_attn_ext_kv_f16_t kernel_flash_attn_ext_kv_f16<block_turbo4, QK_TURBO, dequantize_turbo4>;

// in mul_mm.metal
#define TURBO_MUL_MM_INSTANCES \
template [[host_name("kernel_mul_mm_turbo2_f32")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo2, NL_TURBO, dequantize_turbo2, float, float4x4, float, float2x4>; \
template [[host_name("kernel_mul_mm_turbo3_f32")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo3, NL_TURBO, dequantize_turbo3, float, float4x4, float, float2x4>; \
template [[host_name("kernel_mul_mm_turbo4_f32")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo4, NL_TURBO, dequantize_turbo4, float, float4x4, float, float2x4>; \
template [[host_name("kernel_mul_mm_turbo2_f16")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo2, NL_TURBO, dequantize_turbo2, float, float4x4, half, half2x4>; \
template [[host_name("kernel_mul_mm_turbo3_f16")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo3, NL_TURBO, dequantize_turbo3, float, float4x4, half, half2x4>; \
template [[host_name("kernel_mul_mm_turbo4_f16")]] kernel mul_mm_t kernel_mul_mm<half, half4x4, simdgroup_half8x8, half, half2x4, simdgroup_half8x8, block_turbo4, NL_TURBO, dequantize_turbo4, float, float4x4, half, half2x4>;
