#version 450

// Quantizes as ggml-turbo.c does, to the bit where the driver's division and square root are IEEE's: every sum runs over
// the same 8 lanes in the same order, and `precise` forbids contraction.
//
// 8 invocations quantize a block: invocation `lane` has values lane, lane + 8, .. lane + 56, two of each group of 16. They
// meet in shared memory, since neither the size of a subgroup nor its order is known.

#include "types.glsl"

layout(local_size_x = 256, local_size_y = 1, local_size_z = 1) in;

#define LANES  8
#define BLOCKS (256 / LANES)  // what upstream's dispatch expects a workgroup to do

layout (binding = 0) readonly buffer S {S_TYPE data_s[];};

struct block_bytes { uint8_t b[TURBO(SIZE)]; };

#if defined(SET_ROWS)
#include "generic_binary_head.glsl"
layout (binding = 1) readonly buffer C {B_TYPE data_i[];};
layout (binding = 2) writeonly buffer Q {block_bytes data_q[];};

#if B_SIZE == 64
#define DATA_I_SWIZZLE .x
#else
#define DATA_I_SWIZZLE
#endif

#else
#include "generic_unary_head.glsl"
layout (binding = 1) writeonly buffer Q {block_bytes data_q[];};
#endif

#define N_MAGNITUDES TURBO(N)

const float trials[]       = float[](TURBO(TRIALS));
const float edges_narrow[] = float[](TURBO(NARROW)(TURBO(EDGES)));
const float edges_wide[]   = float[](TURBO(WIDE)(TURBO(EDGES)));

//
// exchange between the lanes of a block
//

// Two buffers in turn: who writes one has passed the barrier that follows the last reading of it.
shared uvec4 exchange[2][256];
uint turn = 0;

// where the 8 values of a block's lanes stand after the call
uint publish(uvec4 v) {
    turn ^= 1;
    exchange[turn][gl_LocalInvocationIndex] = v;
    barrier();
    return gl_LocalInvocationIndex & ~(LANES - 1);
}

vec4 sum_lanes(vec4 v) {
    const uint i = publish(floatBitsToUint(v));
    vec4 s[LANES];
    [[unroll]] for (uint l = 0; l < LANES; ++l) {
        s[l] = uintBitsToFloat(exchange[turn][i + l]);
    }
    precise const vec4 sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    return sum;
}

uint max_lanes(uint v) {
    const uint i = publish(uvec4(v));
    uint m = 0;
    [[unroll]] for (uint l = 0; l < LANES; ++l) {
        m = max(m, exchange[turn][i + l].x);
    }
    return m;
}

//
// quantization
//

// Values lane + 8*k: k = 0..3 in lo, 4..7 in hi. No loop goes over them, because spirv-opt loses `precise` when it unrolls.
// Once scaled they are magnitudes, and those with a minus sign in the reference are named.
vec4 lo, hi;
bvec4 lo_negative, hi_negative;

// The bits of magnitudes, with denormals normalised: exponents below 1 go on downwards. Zero is below all others.
ivec4 unbounded(uvec4 bits) {
    return mix(floatBitsToInt(vec4(bits)) - (149 << 23), ivec4(bits), greaterThanEqual(bits, uvec4(0x00800000u)));
}

// From values to magnitudes divided by the largest one, of which top is unbounded(). A driver may flush denormals: both are
// scaled on their bits, so that the largest is in [1, 2), but not by less than 2^-100, where zero's exponent would wrap
// around. What falls below the normal numbers is too small to be seen in any sum, but for its sign, which is kept unless
// the reference's quotient, too, rounds to zero.
void divide(inout vec4 v, out bvec4 negative, int top) {
    const uvec4 bits   = floatBitsToUint(v);
    const ivec4 value  = unbounded(bits & 0x7fffffffu);
    const int   scale  = max((127 << 23) - (top & int(0xff800000u)), -(100 << 23));
    const ivec4 scaled = value + scale;
    precise const vec4 quotient = intBitsToFloat(scaled) / intBitsToFloat(top + scale);

    negative = bvec4(uvec4(greaterThan(bits, uvec4(0x80000000u))) & uvec4(greaterThan(value, ivec4(top - (150 << 23)))));
    v        = mix(vec4(0), quotient, greaterThanEqual(scaled, ivec4(0x00800000)));
}

uvec4 nearest(vec4 a, bvec4 wide) {
    uvec4 m = uvec4(0);
    [[unroll]] for (uint i = 0; i < N_MAGNITUDES - 1; ++i) {
        m += uvec4(greaterThan(a, mix(vec4(edges_narrow[i]), vec4(edges_wide[i]), wide)));
    }
    return m;
}

vec4 magnitudes(uvec4 m, bvec4 wide) {
    return vec4(TURBO_LEVEL(wide.x, N_MAGNITUDES + m.x), TURBO_LEVEL(wide.y, N_MAGNITUDES + m.y),
                TURBO_LEVEL(wide.z, N_MAGNITUDES + m.z), TURBO_LEVEL(wide.w, N_MAGNITUDES + m.w));
}

float sum_values(vec4 a, vec4 b) {
    precise const float sum = ((((((a.x + a.y) + a.z) + a.w) + b.x) + b.y) + b.z) + b.w;
    return sum;
}

// component g: how much smaller the squared error of group g is with narrow levels times step than with zeros
vec4 gain(float step) {
    precise const float inv_step  = 1.0 / step;
    precise const vec4  lo_scaled = lo * inv_step;
    precise const vec4  hi_scaled = hi * inv_step;

    const vec4 lo_level = magnitudes(nearest(lo_scaled, bvec4(false)), bvec4(false));
    const vec4 hi_level = magnitudes(nearest(hi_scaled, bvec4(false)), bvec4(false));

    precise const vec4 lo_xl = lo * lo_level;
    precise const vec4 hi_xl = hi * hi_level;
    precise const vec4 lo_ll = lo_level * lo_level;
    precise const vec4 hi_ll = hi_level * hi_level;
    precise const vec4 lane_xl = vec4(lo_xl.xz + lo_xl.yw, hi_xl.xz + hi_xl.yw);
    precise const vec4 lane_ll = vec4(lo_ll.xz + lo_ll.yw, hi_ll.xz + hi_ll.yw);

    const vec4 xl = sum_lanes(lane_xl);
    const vec4 ll = sum_lanes(lane_ll);
    precise const vec4 g = step * ((xl + xl) - step * ll);
    return g;
}

// The codes of this lane's values, 4 bits each, for a step and the groups' tables; fit is the step that fits them best.
uint assign(float norm2, float inv_step, uint wide, out float fit) {
    const bvec4 lo_wide = notEqual(uvec4(wide) & uvec4(1, 1, 2, 2), uvec4(0));
    const bvec4 hi_wide = notEqual(uvec4(wide) & uvec4(4, 4, 8, 8), uvec4(0));

    precise const vec4 lo_scaled = lo * inv_step;
    precise const vec4 hi_scaled = hi * inv_step;
    const uvec4 lo_m = nearest(lo_scaled, lo_wide);
    const uvec4 hi_m = nearest(hi_scaled, hi_wide);
    const vec4 lo_level = magnitudes(lo_m, lo_wide);
    const vec4 hi_level = magnitudes(hi_m, hi_wide);

    precise const vec4 lo_xl = lo * lo_level;
    precise const vec4 hi_xl = hi * hi_level;
    precise const vec4 lo_ll = lo_level * lo_level;
    precise const vec4 hi_ll = hi_level * hi_level;

    const vec4 sums = sum_lanes(vec4(sum_values(lo_xl, hi_xl), sum_values(lo_ll, hi_ll), 0.0, 0.0));
    precise const float squares = sums.x / sums.y;
    precise const float norm    = sqrt(norm2 / sums.y);
    precise const float between = squares + TURBO(NORM_WEIGHT) * (norm - squares);
    fit = between;

    const uvec4 lo_code = mix(N_MAGNITUDES + lo_m, N_MAGNITUDES - 1 - lo_m, lo_negative);
    const uvec4 hi_code = mix(N_MAGNITUDES + hi_m, N_MAGNITUDES - 1 - hi_m, hi_negative);
    const uvec4 bits = (lo_code << uvec4(0, 4, 8, 12)) | (hi_code << uvec4(16, 20, 24, 28));
    return bits.x | bits.y | bits.z | bits.w;
}

// 64*step as fp16 with 7 bits of mantissa, by bits: packHalf2x16 may round in another way. NaN, which only a driver that
// flushes denormals makes, becomes 0.
uint round_step(float step) {
    precise const float v = step * 64.0;
    const float c = v > 0.0 ? min(v, 65504.0) : 0.0;
    const uint  u = floatBitsToUint(c);

    const uint h = c < 6.103515625e-5 ? uint(roundEven(c * 16777216.0))
                                      : (u - (112u << 23) + 0x0fffu + ((u >> 13) & 1)) >> 13;
    return GGML_TURBO_ROUND_STEP(h);
}

// All invocations come here, also those without a block: they meet at barriers.
void quantize(uint dst_idx, bool valid) {
    const uint lane = gl_LocalInvocationIndex % LANES;

    // as integers: a comparison of floats may flush denormals or assume that there is no NaN
    const uvec4 bits = max(floatBitsToUint(lo) & 0x7fffffffu, floatBitsToUint(hi) & 0x7fffffffu);
    const uint  amax_bits = max_lanes(max(max(bits.x, bits.y), max(bits.z, bits.w)));
    const bool  finite = amax_bits < 0x7f800000u;
    const float amax   = uintBitsToFloat(amax_bits);

    // work on x/amax: no square overflows or vanishes
    const int top = unbounded(uvec4(amax_bits)).x;
    divide(lo, lo_negative, top);
    divide(hi, hi_negative, top);

    precise const vec4 lo_xx = lo * lo;
    precise const vec4 hi_xx = hi * hi;
    const float norm2 = sum_lanes(vec4(sum_values(lo_xx, hi_xx), 0.0, 0.0, 0.0)).x;
    precise const float unit = sqrt(norm2 / QUANT_K) / TURBO(SIGMA);

    // a trial with the wide table stands for the second next one with the narrow table
    vec4  narrow, between;
    float best_total = 0.0;
    float best       = trials[0];
    uint  wide       = 0;
    [[dont_unroll]] for (uint t = 0; t < TURBO(N_TRIALS); ++t) {
        precise const float step = unit * trials[t];
        const vec4 g = gain(step);
        if (t >= 2) {
            const bvec4 wider = greaterThan(g, narrow);
            const vec4 m = mix(narrow, g, wider);
            precise const float total = (m.x + m.z) + (m.y + m.w);
            if (t == 2 || total > best_total) {
                best_total = total;
                best       = trials[t - 2];
                wide       = uint(wider.x) | (uint(wider.y) << 1) | (uint(wider.z) << 2) | (uint(wider.w) << 3);
            }
        }
        narrow  = between;
        between = g;
    }

    float fit;
    precise const float first_step = unit * best;
    precise const float inv_first  = 1.0 / first_step;
    uint codes = assign(norm2, inv_first, wide, fit);
    precise const float first_fit = fit * amax;
    uint step = round_step(first_fit);

    // again for the rounded step, unless it is 0
    precise const float inv_second = amax / turbo_step(step << 1);
    const uint codes_again = assign(norm2, inv_second, wide, fit);
    if (step != 0) {
        precise const float second_fit = fit * amax;
        codes = codes_again;
        step  = round_step(second_fit);
    }

    uint d = (step << 1) | wide;
    if (!finite || amax_bits == 0) {
        codes = 0;
        d     = finite ? 0u : GGML_TURBO_NAN;
    }

#if defined(DATA_A_TURBO3)
    // bit lane of qh[k] is the third bit of value 8*k + lane
    const uint i = publish(uvec4(codes));
    uint qh = 0;
    [[unroll]] for (uint l = 0; l < LANES; ++l) {
        qh |= ((exchange[turn][i + l].x >> (4 * lane + 2)) & 1) << l;
    }
#endif

    if (!valid) {
        return;
    }

    if (lane == 0) {
        data_q[dst_idx].b[0] = uint8_t(d & 0xff);
        data_q[dst_idx].b[1] = uint8_t(d >> 8);
    }

#if defined(DATA_A_TURBO4)
    [[unroll]] for (uint k = 0; k < 4; ++k) {
        const uint low  = (codes >> (4 * k)) & 15;
        const uint high = (codes >> (4 * (k + 4))) & 15;
        data_q[dst_idx].b[2 + LANES * k + lane] = uint8_t(low | (high << 4));
    }
#else
    [[unroll]] for (uint k = 0; k < 2; ++k) {
        uint byte = 0;
        [[unroll]] for (uint g = 0; g < 4; ++g) {
            byte |= ((codes >> (4 * (2 * g + k))) & 3) << (2 * g);
        }
        data_q[dst_idx].b[2 + LANES * k + lane] = uint8_t(byte);
    }
#endif
#if defined(DATA_A_TURBO3)
    data_q[dst_idx].b[18 + lane] = uint8_t(qh);
#endif
}

void main() {
    const uint in_group = gl_LocalInvocationIndex / LANES;

#if defined(SET_ROWS)
    const uint block = (gl_WorkGroupID.z * 262144 + gl_WorkGroupID.y * 512 + gl_WorkGroupID.x) * BLOCKS + in_group;
#else
    const uint block = gl_WorkGroupID.z * 262144 + gl_WorkGroupID.y * 512 + gl_WorkGroupID.x * BLOCKS + in_group;
#endif
    const uint idx   = block * QUANT_K;
    const bool valid = idx < p.ne;

    uint src_idx = 0;
    uint dst_block = 0;
    if (valid) {
#if defined(SET_ROWS)
        uint i00, i01, i02, i03;
        get_indices(idx, i00, i01, i02, i03);

        const uint i12 = fastmod(i03, p.ne12);
        const uint i11 = fastmod(i02, p.ne11);
        const uint i1  = data_i[src1_idx(i01, i11, i12, 0) + get_boffset()] DATA_I_SWIZZLE;

        src_idx   = src0_idx(i00, i01, i02, i03) + get_aoffset() + gl_LocalInvocationIndex % LANES;
        dst_block = dst_idx(i00 / QUANT_K, i1, i02, i03) + get_doffset();
#else
        src_idx   = src0_idx(idx) + get_aoffset() + gl_LocalInvocationIndex % LANES;
        dst_block = dst_idx_quant(idx, QUANT_K);
#endif
    }

    lo = vec4(0);
    hi = vec4(0);
    if (valid) {
        [[unroll]] for (uint k = 0; k < 4; ++k) {
            lo[k] = float(data_s[src_idx + LANES * k]);
            hi[k] = float(data_s[src_idx + LANES * (k + 4)]);
        }
    }

    quantize(dst_block, valid);
}
