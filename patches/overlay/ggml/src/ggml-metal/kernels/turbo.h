#pragma once

// Turbo cache types: blocks, tables, decoders, and the instances of upstream's kernel templates that read them.
// ../ggml-turbo.c is the definition. Follows dequantize.h.

#define QK_TURBO 64
#define NL_TURBO 4  // parts of 16 values in a block; each part has its choice of table

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
} block_turbo2;

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 4];
    uint8_t  qh[QK_TURBO / 8];
} block_turbo3;

typedef struct {
    uint16_t d;
    uint8_t  qs[QK_TURBO / 2];
} block_turbo4;

static_assert(sizeof(block_turbo2) == 18, "wrong turbo2 block size");
static_assert(sizeof(block_turbo3) == 26, "wrong turbo3 block size");
static_assert(sizeof(block_turbo4) == 34, "wrong turbo4 block size");

// narrow levels, then wide ones
constexpr constant static float turbo2_levels[8] = { -85, -25, 25, 85, -127, -38, 38, 127 };

constexpr constant static float turbo3_levels[16] = {
    -88, -55, -31, -10, 10, 31, 55, 88, -121, -76, -43, -14, 14, 43, 76, 121,
};

constexpr constant static float turbo4_levels[32] = {
    -104, -79, -62, -48, -36, -25, -15, -5, 5, 15, 25, 36, 48, 62, 79, 104,  // narrow
    -124, -94, -73, -57, -43, -30, -18, -6, 6, 18, 30, 43, 57, 73, 94, 124,  // wide
};

// An fp16 divided by 64. Made of integers: a GPU may flush denormals, of which the fp16 can be one.
static inline float turbo_step(uint16_t d) {
    const uint32_t h = (d >> 1) & 0x7ff8;
    return h < 0x400 ? (float) h * 9.31322574615478515625e-10f :
                       as_type<float>((h << 13) + (h < 0x7c00 ? 0x35000000u : 0x70000000u));
}

// where the choice of table for quad i puts its levels
static inline short turbo_table(uint16_t d, short i, short size) {
    return ((d >> (i / 4)) & 1) * size;
}

// The 4 values from 4*i on. Step and level have 8 and 7 bits, so that their product is exact.

template <typename type4> void dequantize_turbo2_t4(const device block_turbo2 * xb, short i, thread type4 & reg) {
    const uint16_t d     = xb->d;
    const short    table = turbo_table(d, i, 4);

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        levels[k] = turbo2_levels[table + ((xb->qs[4 * (i % 4) + k] >> (2 * (i / 4))) & 3)];
    }
    reg = (type4) (levels * turbo_step(d));
}

template <typename type4> void dequantize_turbo3_t4(const device block_turbo3 * xb, short i, thread type4 & reg) {
    const uint16_t d     = xb->d;
    const short    table = turbo_table(d, i, 8);
    const short    hi    = xb->qh[i / 2] >> (4 * (i % 2));

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        const short lo = (xb->qs[4 * (i % 4) + k] >> (2 * (i / 4))) & 3;
        levels[k]      = turbo3_levels[table + (lo | (((hi >> k) & 1) << 2))];
    }
    reg = (type4) (levels * turbo_step(d));
}

template <typename type4> void dequantize_turbo4_t4(const device block_turbo4 * xb, short i, thread type4 & reg) {
    const uint16_t d     = xb->d;
    const short    table = turbo_table(d, i, 16);

    float4 levels;
    for (short k = 0; k < 4; ++k) {
        levels[k] = turbo4_levels[table + ((xb->qs[4 * (i % 8) + k] >> (4 * (i / 8))) & 15)];
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
