#if !defined(TURBO_TYPES_GLSL)
#define TURBO_TYPES_GLSL

// Blocks and levels of the turbo cache types. ggml-turbo.c defines them.

#define GGML_TYPE_TURBO2 100u
#define GGML_TYPE_TURBO3 101u
#define GGML_TYPE_TURBO4 102u

#define QUANT_K_TURBO 64

// All sizes are even: w[0] holds the step and the choices of tables, then come qs and qh.
struct block_turbo2 { uint16_t w[9]; };
struct block_turbo3 { uint16_t w[13]; };
struct block_turbo4 { uint16_t w[17]; };

// The step as fp32, by bits: an instruction that converts may flush a denormal fp16 to zero. The 2^-6 of the step's unit
// is part of both constants.
float turbo_step(uint d) {
    const uint h = (d >> 1) & 0x7ff8u;
    if (h >= 0x7c00u) {
        return uintBitsToFloat(0x7f800000u | (h << 13));
    }
    return h < 0x0400u ? float(h) * (1.0 / 1073741824.0) : uintBitsToFloat((h << 13) + (106u << 23));
}

// byte i of four as a signed number
float turbo_byte(uint bytes, uint i) {
    return float(bitfieldExtract(int(bytes), int(8 * (i & 3)), 8));
}

// the level of a code in the narrow or the wide table
float turbo2_level(bool wide, uint code) {
    return turbo_byte(wide ? 0x7f26da81u : 0x5519e7abu, code);
}

float turbo3_level(bool wide, uint code) {
    const uvec2 levels = wide ? uvec2(0xf2d5b487u, 0x794c2b0eu) : uvec2(0xf6e1c9a8u, 0x58371f0au);
    return turbo_byte((code & 4) == 0 ? levels.x : levels.y, code);
}

float turbo4_level(bool wide, uint code) {
    const uvec4 levels = wide ? uvec4(0xc7b7a284u, 0xfaeee2d5u, 0x2b1e1206u, 0x7c5e4939u)
                              : uvec4(0xd0c2b198u, 0xfbf1e7dcu, 0x24190f05u, 0x684f3e30u);
    const uvec2 half_of = (code & 8) == 0 ? levels.xy : levels.zw;
    return turbo_byte((code & 4) == 0 ? half_of.x : half_of.y, code);
}

bool turbo_wide(uint d, uint j) {
    return ((d >> (j / 16)) & 1) != 0;
}

// Levels j..j+3 of a block, j a multiple of 4, whose codes stand in the 32 bits qs and the 16 bits qh.
vec4 turbo2_levels(uint d, uint qs, uint j) {
    const bool wide = turbo_wide(d, j);
    const uint c    = qs >> (2 * (j / 16));
    return vec4(turbo2_level(wide, c), turbo2_level(wide, c >> 8), turbo2_level(wide, c >> 16), turbo2_level(wide, c >> 24));
}

vec4 turbo3_levels(uint d, uint qs, uint qh, uint j) {
    const bool wide = turbo_wide(d, j);
    // bit i of the four goes to byte i
    const uint hi = (((qh >> (j % 16)) & 0xf) * 0x00204081u) & 0x01010101u;
    const uint c  = ((qs >> (2 * (j / 16))) & 0x03030303u) | (hi << 2);
    return vec4(turbo3_level(wide, c), turbo3_level(wide, c >> 8), turbo3_level(wide, c >> 16), turbo3_level(wide, c >> 24));
}

vec4 turbo4_levels(uint d, uint qs, uint j) {
    const bool wide = turbo_wide(d, j);
    const uint c    = qs >> (4 * (j / 32));
    return vec4(turbo4_level(wide, c), turbo4_level(wide, c >> 8), turbo4_level(wide, c >> 16), turbo4_level(wide, c >> 24));
}

// The same with W(i) reading word i: a shader without 16-bit arithmetic cannot pass a block to a function.
#define TURBO2_LEVELS(W, j) turbo2_levels(W(0), W(1 + ((j) % 16) / 2) | (W(2 + ((j) % 16) / 2) << 16), j)
#define TURBO3_LEVELS(W, j) turbo3_levels(W(0), W(1 + ((j) % 16) / 2) | (W(2 + ((j) % 16) / 2) << 16), W(9 + (j) / 16), j)
#define TURBO4_LEVELS(W, j) turbo4_levels(W(0), W(1 + ((j) % 32) / 2) | (W(2 + ((j) % 32) / 2) << 16), j)

#if defined(DATA_A_TURBO2)
#define A_TYPE block_turbo2
#define TURBO_LEVEL  turbo2_level
#define TURBO_LEVELS TURBO2_LEVELS
#elif defined(DATA_A_TURBO3)
#define A_TYPE block_turbo3
#define TURBO_LEVEL  turbo3_level
#define TURBO_LEVELS TURBO3_LEVELS
#elif defined(DATA_A_TURBO4)
#define A_TYPE block_turbo4
#define TURBO_LEVEL  turbo4_level
#define TURBO_LEVELS TURBO4_LEVELS
#endif

#if defined(TURBO_LEVELS)
#define QUANT_K QUANT_K_TURBO
#define QUANT_R 1
#endif

#endif // !defined(TURBO_TYPES_GLSL)
