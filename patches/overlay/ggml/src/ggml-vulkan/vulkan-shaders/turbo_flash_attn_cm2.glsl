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

f16vec4 turbo2_fa_decode(const decodeBufTurbo2 bl, const uint j) {
    return f16vec4(turbo_step(TURBO_BLOCK_WORD(0)) * TURBO2_LEVELS(TURBO_BLOCK_WORD, j));
}

f16vec4 turbo3_fa_decode(const decodeBufTurbo3 bl, const uint j) {
    return f16vec4(turbo_step(TURBO_BLOCK_WORD(0)) * TURBO3_LEVELS(TURBO_BLOCK_WORD, j));
}

f16vec4 turbo4_fa_decode(const decodeBufTurbo4 bl, const uint j) {
    return f16vec4(turbo_step(TURBO_BLOCK_WORD(0)) * TURBO4_LEVELS(TURBO_BLOCK_WORD, j));
}

f16vec4 turboDecodeKVector(const decodeBufFA_K bl_in, const uint blockCoords[2], const uint coordInBlock[2]) {
    switch (FaTypeK) {
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), coordInBlock[1]);
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), coordInBlock[1]);
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), coordInBlock[1]);
        default: return faDecodeKVector(bl_in, blockCoords, coordInBlock);
    }
}

f16vec4 turboDecodeVVector(const decodeBufFA_V bl_in, const uint blockCoords[2], const uint coordInBlock[2]) {
    switch (FaTypeV) {
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), coordInBlock[1]);
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), coordInBlock[1]);
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), coordInBlock[1]);
        default: return faDecodeVVector(bl_in, blockCoords, coordInBlock);
    }
}

float16_t turboDecodeK(const decodeBufFA_K bl_in, const uint blockCoords[2], const uint coordInBlock[2]) {
    const uint j = coordInBlock[1];
    switch (FaTypeK) {
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), j & ~3u)[j & 3u];
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), j & ~3u)[j & 3u];
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), j & ~3u)[j & 3u];
        default: return faDecodeK(bl_in, blockCoords, coordInBlock);
    }
}

float16_t turboDecodeV(const decodeBufFA_V bl_in, const uint blockCoords[2], const uint coordInBlock[2]) {
    const uint j = coordInBlock[1];
    switch (FaTypeV) {
        case GGML_TYPE_TURBO2: return turbo2_fa_decode(decodeBufTurbo2(bl_in), j & ~3u)[j & 3u];
        case GGML_TYPE_TURBO3: return turbo3_fa_decode(decodeBufTurbo3(bl_in), j & ~3u)[j & 3u];
        case GGML_TYPE_TURBO4: return turbo4_fa_decode(decodeBufTurbo4(bl_in), j & ~3u)[j & 3u];
        default: return faDecodeV(bl_in, blockCoords, coordInBlock);
    }
}

#undef FADECODEK
#undef FADECODEV
#ifdef GL_NV_cooperative_matrix_decode_vector
#define FADECODEK , turboDecodeK, turboDecodeKVector
#define FADECODEV , turboDecodeV, turboDecodeVVector
#else
#define FADECODEK , turboDecodeK
#define FADECODEV , turboDecodeV
#endif
