// Turbo K and V for the coopmat2 flash attention: the decoders of flash_attn_cm2.comp, wrapped.

#include "turbo_flash_attn_types.glsl"

layout(buffer_reference, std430, buffer_reference_align = 2) buffer decodeBufTurbo2 {
    block_turbo2 block;
};
layout(buffer_reference, std430, buffer_reference_align = 2) buffer decodeBufTurbo3 {
    block_turbo3 block;
};
layout(buffer_reference, std430, buffer_reference_align = 2) buffer decodeBufTurbo4 {
    block_turbo4 block;
};

#define TURBO_BLOCK_WORD(i) uint(bl.block.w[i])

#define TURBO_FA_BLOCK(N)                                                                          \
f16vec4 turbo##N##_fa_decode(const decodeBufTurbo##N bl, const uint j) {                           \
    return f16vec4(turbo_step(TURBO_BLOCK_WORD(0)) * TURBO##N##_LEVELS(TURBO_BLOCK_WORD, j));      \
}

TURBO_FA_BLOCK(2)
TURBO_FA_BLOCK(3)
TURBO_FA_BLOCK(4)

#define TURBO_FA_DECODERS(KV)                                                                      \
f16vec4 turboDecode##KV##Vector(const decodeBufFA_##KV bl_in, const uint blockCoords[2], const uint coordInBlock[2]) { \
    const uint j = coordInBlock[1];                                                                \
    switch (FaType##KV) {                                                                          \
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), j);                 \
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), j);                 \
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), j);                 \
        default: return faDecode##KV##Vector(bl_in, blockCoords, coordInBlock);                    \
    }                                                                                              \
}                                                                                                  \
float16_t turboDecode##KV(const decodeBufFA_##KV bl_in, const uint blockCoords[2], const uint coordInBlock[2]) { \
    const uint j = coordInBlock[1];                                                                \
    switch (FaType##KV) {                                                                          \
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), j & ~3u)[j & 3u];   \
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), j & ~3u)[j & 3u];   \
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), j & ~3u)[j & 3u];   \
        default: return faDecode##KV(bl_in, blockCoords, coordInBlock);                            \
    }                                                                                              \
}

TURBO_FA_DECODERS(K)
TURBO_FA_DECODERS(V)

// from here on: upstream's own macros and functions that decode name these
#define faDecodeK       turboDecodeK
#define faDecodeV       turboDecodeV
#define faDecodeKVector turboDecodeKVector
#define faDecodeVVector turboDecodeVVector
