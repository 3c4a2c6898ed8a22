#if !defined(TURBO_TYPES_GLSL)
#define TURBO_TYPES_GLSL

#include "../../ggml-turbo-tables.h"

#define GGML_TYPE_TURBO2 uint(GGML_TURBO2_TYPE)
#define GGML_TYPE_TURBO3 uint(GGML_TURBO3_TYPE)
#define GGML_TYPE_TURBO4 uint(GGML_TURBO4_TYPE)

// All sizes are even: w[0] is d, then come qs and qh.
struct block_turbo2 { uint16_t w[GGML_TURBO2_SIZE / 2]; };
struct block_turbo3 { uint16_t w[GGML_TURBO3_SIZE / 2]; };
struct block_turbo4 { uint16_t w[GGML_TURBO4_SIZE / 2]; };

// The step as fp32, by bits: an instruction that converts may flush a denormal fp16 to zero. The 2^-6 of the step's unit
// is part of both constants.
float turbo_step(uint d) {
    const uint h = GGML_TURBO_STEP(d);
    if (h >= 0x7c00u) {
        return uintBitsToFloat(0x7f800000u | (h << 13));
    }
    return h < 0x0400u ? float(h) * (1.0 / 1073741824.0) : uintBitsToFloat((h << 13) + (106u << 23));
}

// byte i of four as a signed number
float turbo_byte(uint bytes, uint i) {
    return float(bitfieldExtract(int(bytes), int(8 * (i & 3)), 8));
}

// levels by code as bytes of words
#define TURBO_BYTE(a, i)        ((uint(a) & 0xff) << (8 * i))
#define TURBO_WORD(a, b, c, d)  (TURBO_BYTE(a, 0) | TURBO_BYTE(b, 1) | TURBO_BYTE(c, 2) | TURBO_BYTE(d, 3))
#define TURBO2_WORD(a, b)       TURBO_WORD(-b, -a, a, b)
#define TURBO3_WORDS(a, b, c, d) uvec2(TURBO_WORD(-d, -c, -b, -a), TURBO_WORD(a, b, c, d))
#define TURBO4_WORDS(a, b, c, d, e, f, g, h) \
    uvec4(TURBO_WORD(-h, -g, -f, -e), TURBO_WORD(-d, -c, -b, -a), TURBO_WORD(a, b, c, d), TURBO_WORD(e, f, g, h))

// the level of a code in the narrow or the wide table
float turbo2_level(bool wide, uint code) {
    return turbo_byte(wide ? GGML_TURBO2_WIDE(TURBO2_WORD) : GGML_TURBO2_NARROW(TURBO2_WORD), code);
}

float turbo3_level(bool wide, uint code) {
    const uvec2 levels = wide ? GGML_TURBO3_WIDE(TURBO3_WORDS) : GGML_TURBO3_NARROW(TURBO3_WORDS);
    return turbo_byte((code & 4) == 0 ? levels.x : levels.y, code);
}

float turbo4_level(bool wide, uint code) {
    const uvec4 levels = wide ? GGML_TURBO4_WIDE(TURBO4_WORDS) : GGML_TURBO4_NARROW(TURBO4_WORDS);
    const uvec2 half_of = (code & 8) == 0 ? levels.xy : levels.zw;
    return turbo_byte((code & 4) == 0 ? half_of.x : half_of.y, code);
}

// Levels j..j+3 of a block, j a multiple of 4, whose codes stand in the 32 bits qs and the 16 bits qh.
vec4 turbo2_levels(uint d, uint qs, uint j) {
    const bool wide = GGML_TURBO_WIDE(d, j) != 0;
    const uint c    = qs >> GGML_TURBO2_BIT(j);
    return vec4(turbo2_level(wide, c), turbo2_level(wide, c >> 8), turbo2_level(wide, c >> 16), turbo2_level(wide, c >> 24));
}

vec4 turbo3_levels(uint d, uint qs, uint qh, uint j) {
    const bool wide = GGML_TURBO_WIDE(d, j) != 0;
    // bit i of the four goes to byte i
    const uint hi = (((qh >> (j % 16)) & 0xf) * 0x00204081u) & 0x01010101u;
    const uint c  = ((qs >> GGML_TURBO2_BIT(j)) & 0x03030303u) | (hi << 2);
    return vec4(turbo3_level(wide, c), turbo3_level(wide, c >> 8), turbo3_level(wide, c >> 16), turbo3_level(wide, c >> 24));
}

vec4 turbo4_levels(uint d, uint qs, uint j) {
    const bool wide = GGML_TURBO_WIDE(d, j) != 0;
    const uint c    = qs >> GGML_TURBO4_BIT(j);
    return vec4(turbo4_level(wide, c), turbo4_level(wide, c >> 8), turbo4_level(wide, c >> 16), turbo4_level(wide, c >> 24));
}

// The same with W(i) reading word i: a shader without 16-bit arithmetic cannot pass a block to a function.
#define TURBO_QS(W, i)       (W(1 + (i) / 2) | (W(2 + (i) / 2) << 16))
#define TURBO2_LEVELS(W, j)  turbo2_levels(W(0), TURBO_QS(W, GGML_TURBO2_BYTE(j)), j)
#define TURBO3_LEVELS(W, j)  turbo3_levels(W(0), TURBO_QS(W, GGML_TURBO2_BYTE(j)), W(9 + (j) / 16), j)
#define TURBO4_LEVELS(W, j)  turbo4_levels(W(0), TURBO_QS(W, GGML_TURBO4_BYTE(j)), j)

// the type that a shader is compiled for
#if defined(DATA_A_TURBO2)
#define A_TYPE block_turbo2
#define TURBO(NAME) GGML_TURBO2_##NAME
#define TURBO_LEVEL  turbo2_level
#define TURBO_LEVELS TURBO2_LEVELS
#elif defined(DATA_A_TURBO3)
#define A_TYPE block_turbo3
#define TURBO(NAME) GGML_TURBO3_##NAME
#define TURBO_LEVEL  turbo3_level
#define TURBO_LEVELS TURBO3_LEVELS
#elif defined(DATA_A_TURBO4)
#define A_TYPE block_turbo4
#define TURBO(NAME) GGML_TURBO4_##NAME
#define TURBO_LEVEL  turbo4_level
#define TURBO_LEVELS TURBO4_LEVELS
#endif

#if defined(TURBO_LEVELS)
#define QUANT_K QK_TURBO
#define QUANT_R 1
#endif

#endif // !defined(TURBO_TYPES_GLSL)
