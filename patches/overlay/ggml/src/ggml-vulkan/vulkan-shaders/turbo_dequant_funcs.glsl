// What dequant_funcs.glsl has for every other type.

#if defined(TURBO_LEVELS)
#define TURBO_A_WORD(i) uint(data_a[a_offset + ib].w[i])

vec4 dequantize4(uint ib, uint iqs, uint a_offset) {
    return TURBO_LEVELS(TURBO_A_WORD, iqs);
}

vec2 dequantize(uint ib, uint iqs, uint a_offset) {
    const vec4 v = dequantize4(ib, iqs & ~3u, a_offset);
    return (iqs & 2) == 0 ? v.xy : v.zw;
}

vec2 get_dm(uint ib, uint a_offset) {
    return vec2(turbo_step(TURBO_A_WORD(0)), 0);
}
#endif
