// Turbo K and V for the scalar and the coopmat1 flash attention: dequantize4() of flash_attn_dequant.glsl, wrapped.

#include "turbo_flash_attn_types.glsl"

layout (binding = 1) readonly buffer K_TURBO2 { block_turbo2 data[]; } k_turbo2;
layout (binding = 2) readonly buffer V_TURBO2 { block_turbo2 data[]; } v_turbo2;
layout (binding = 1) readonly buffer K_TURBO3 { block_turbo3 data[]; } k_turbo3;
layout (binding = 2) readonly buffer V_TURBO3 { block_turbo3 data[]; } v_turbo3;
layout (binding = 1) readonly buffer K_TURBO4 { block_turbo4 data[]; } k_turbo4;
layout (binding = 2) readonly buffer V_TURBO4 { block_turbo4 data[]; } v_turbo4;

#define TURBO_K2_WORD(i) uint(k_turbo2.data[a_offset + ib].w[i])
#define TURBO_V2_WORD(i) uint(v_turbo2.data[a_offset + ib].w[i])
#define TURBO_K3_WORD(i) uint(k_turbo3.data[a_offset + ib].w[i])
#define TURBO_V3_WORD(i) uint(v_turbo3.data[a_offset + ib].w[i])
#define TURBO_K4_WORD(i) uint(k_turbo4.data[a_offset + ib].w[i])
#define TURBO_V4_WORD(i) uint(v_turbo4.data[a_offset + ib].w[i])

// The product is made in fp32: 64 times the step may be more than fp16 holds.
#define TURBO_FA_VALUES(LEVELS, W) FLOAT_TYPEV4(turbo_step(W(0)) * LEVELS(W, iqs))

FLOAT_TYPEV4 turbo_fa_dequantize4(uint ib, uint iqs, uint a_offset, uint binding_idx) {
    if (binding_idx == BINDING_IDX_K) {
        switch (FaTypeK) {
            case GGML_TYPE_TURBO2: return TURBO_FA_VALUES(TURBO2_LEVELS, TURBO_K2_WORD);
            case GGML_TYPE_TURBO3: return TURBO_FA_VALUES(TURBO3_LEVELS, TURBO_K3_WORD);
            case GGML_TYPE_TURBO4: return TURBO_FA_VALUES(TURBO4_LEVELS, TURBO_K4_WORD);
        }
    } else {
        switch (FaTypeV) {
            case GGML_TYPE_TURBO2: return TURBO_FA_VALUES(TURBO2_LEVELS, TURBO_V2_WORD);
            case GGML_TYPE_TURBO3: return TURBO_FA_VALUES(TURBO3_LEVELS, TURBO_V3_WORD);
            case GGML_TYPE_TURBO4: return TURBO_FA_VALUES(TURBO4_LEVELS, TURBO_V4_WORD);
        }
    }
    return dequantize4(ib, iqs, a_offset, binding_idx);
}
#define dequantize4 turbo_fa_dequantize4
