#include "common.h"
#include "dequantize.h"

// Quantizing to the turbo types, and products with their rows.
//
// A simdgroup quantizes a block: 8 lanes are the 8 lanes of the reference's sums (value j belongs to lane j%8), and each
// of the 4 slots of 8 threads tries other steps. A sum over lanes is three exchanges, in the reference's order.
//
// The reference's bytes must come out although a GPU flushes denormals and the compiler may be lax about floats:
// - magnitudes, signs and scaling are integer arithmetic on the bits of the values, so that no denormal is ever an operand
//   whose value matters;
// - quotients and roots are those of metal::precise, which are rounded correctly in every math mode;
// - each function that computes with floats turns contraction and reordering off.

#define TURBO_N_SLOTS  4
#define TURBO_N_ROUNDS 3

constexpr constant static ggml_turbo_codebook turbo2_codebook = GGML_TURBO_CODEBOOK(2);
constexpr constant static ggml_turbo_codebook turbo3_codebook = GGML_TURBO_CODEBOOK(3);
constexpr constant static ggml_turbo_codebook turbo4_codebook = GGML_TURBO_CODEBOOK(4);

// what a thread knows of its block: values lane, lane + 8, ...
typedef struct {
    float    x[8];  // magnitudes, divided by the largest one of the block
    uint32_t negative;  // bit i: x[i] has a minus sign in the reference
    float    norm2;  // sum of the squares of the whole block
} turbo_values;

// ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7)) in all lanes
template <typename T> static inline T turbo_sum_lanes(T x) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    x = x + simd_shuffle_xor(x, 4);
    x = x + simd_shuffle_xor(x, 2);
    x = x + simd_shuffle_xor(x, 1);
    return x;
}

// The bits of a magnitude, with denormals normalised: exponents below 1 go on downwards. Zero is below all others.
static inline int32_t turbo_unbounded(uint32_t bits) {
    return bits >= 0x00800000 ? (int32_t) bits : as_type<int32_t>((float) bits) - (149 << 23);
}

// position of the magnitude that is nearest to a
static inline short turbo_nearest(constant ggml_turbo_codebook & cb, short wide, float a) {
    short m = 0;
    for (short i = 0; i < cb.n - 1; ++i) {
        m += a > cb.edges[wide][i] ? 1 : 0;
    }
    return m;
}

// Read the block. Returns the bits of its largest magnitude: zero, or those of a number, or of what is none.
static inline uint32_t turbo_load(device const uint32_t * src, short lane, thread turbo_values & v) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    uint32_t bits[8];
    uint32_t amax = 0;
    for (short i = 0; i < 8; ++i) {
        bits[i] = src[8 * i + lane];
        amax    = max(amax, bits[i] & 0x7fffffff);
    }
    amax = max(amax, simd_shuffle_xor(amax, 4));
    amax = max(amax, simd_shuffle_xor(amax, 2));
    amax = max(amax, simd_shuffle_xor(amax, 1));

    if (amax == 0 || amax > 0x7f7fffff) {
        return amax;
    }

    // Scale so that the largest magnitude is in [1, 2), but not by less than 2^-100, where zero's exponent would wrap around.
    // What falls below the normal numbers is too small to be seen in any sum, but for its sign, which is kept unless the
    // reference's quotient, too, rounds to zero.
    const int32_t top   = turbo_unbounded(amax);
    const int32_t scale = max((127 << 23) - (top & (int32_t) 0xff800000), -(100 << 23));
    const float   div   = as_type<float>(top + scale);

    v.negative  = 0;
    float norm2 = 0.0f;
    for (short i = 0; i < 8; ++i) {
        const uint32_t magnitude = bits[i] & 0x7fffffff;
        const int32_t  value     = turbo_unbounded(magnitude);
        const int32_t  scaled    = value + scale;

        if ((bits[i] >> 31) != 0 && magnitude != 0 && value > top - (150 << 23)) {
            v.negative |= 1u << i;
        }
        v.x[i] = scaled < 0x00800000 ? 0.0f : precise::divide(as_type<float>(scaled), div);

        norm2 += v.x[i] * v.x[i];
    }
    v.norm2 = turbo_sum_lanes(norm2);

    return amax;
}

// For each group of 16 values: how much smaller the squared error is with narrow levels times step than with zeros.
static inline float4 turbo_gain(constant ggml_turbo_codebook & cb, thread const turbo_values & v, float step) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    const float inv_step = precise::divide(1.0f, step);

    float4 xl;
    float4 ll;
    for (short g = 0; g < 4; ++g) {
        const float l0 = cb.magnitudes[0][turbo_nearest(cb, 0, v.x[2 * g + 0] * inv_step)];
        const float l1 = cb.magnitudes[0][turbo_nearest(cb, 0, v.x[2 * g + 1] * inv_step)];

        xl[g] = v.x[2 * g + 0] * l0 + v.x[2 * g + 1] * l1;
        ll[g] = l0 * l0 + l1 * l1;
    }

    const float4 sum     = turbo_sum_lanes(xl);
    const float4 squares = turbo_sum_lanes(ll);
    return ((sum + sum) - squares * step) * step;
}

// The trial whose step is the narrow one of the best pair, and the groups that take the wide table, as bits.
static inline short turbo_choose(constant ggml_turbo_codebook & cb, thread const float4 * gain, thread short & wide) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    float4 all[GGML_TURBO_N_TRIALS];
    for (short t = 0; t < GGML_TURBO_N_TRIALS; ++t) {
        all[t] = simd_shuffle(gain[t / TURBO_N_SLOTS], 8 * (t % TURBO_N_SLOTS));
    }

    short  best       = 0;
    float  best_total = 0.0f;
    float4 narrow     = all[0];
    float4 other      = all[2];
    for (short t = 0; t < cb.n_trials - 2; ++t) {
        float4 g;
        for (short i = 0; i < 4; ++i) {
            g[i] = all[t + 2][i] > all[t][i] ? all[t + 2][i] : all[t][i];
        }
        const float total = (g[0] + g[2]) + (g[1] + g[3]);
        if (t == 0 || total > best_total) {
            best_total = total;
            best       = t;
            narrow     = all[t];
            other      = all[t + 2];
        }
    }

    wide = 0;
    for (short i = 0; i < 4; ++i) {
        wide |= other[i] > narrow[i] ? 1 << i : 0;
    }
    return best;
}

// Codes of the levels that are nearest for a step and the groups' tables; returns the step that fits them best.
static inline float turbo_assign(constant ggml_turbo_codebook & cb,
                                 thread const turbo_values & v,
                                 float                       inv_step,
                                 short                       wide,
                                 thread short *              codes) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    float xl = 0.0f;
    float ll = 0.0f;
    for (short i = 0; i < 8; ++i) {
        const short w = (wide >> (i / 2)) & 1;
        const short m = turbo_nearest(cb, w, v.x[i] * inv_step);
        const float l = cb.magnitudes[w][m];
        xl += v.x[i] * l;
        ll += l * l;
        codes[i] = ((v.negative >> i) & 1) != 0 ? cb.n - 1 - m : cb.n + m;
    }

    const float2 sums    = turbo_sum_lanes(float2(xl, ll));
    const float  squares = precise::divide(sums[0], sums[1]);
    const float  norm    = precise::sqrt(precise::divide(v.norm2, sums[1]));
    return squares + cb.norm_weight * (norm - squares);
}

// 64*step as fp16 with 7 bits of mantissa; the largest one instead of infinity
static inline uint16_t turbo_round_step(float step) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    const uint32_t f = as_type<uint32_t>(step < 1023.5f ? step * 64.0f : 65504.0f);
    const int32_t  e = (int32_t) (f >> 23) - 112;

    uint32_t h = 0;
    if (e > 0) {
        h = (f - (112u << 23) + 0xfff + ((f >> 13) & 1)) >> 13;
    } else if (e >= -10) {
        const uint32_t m     = (f & 0x7fffff) | 0x800000;
        const uint32_t shift = 14 - e;
        h                    = (m + ((1u << (shift - 1)) - 1) + ((m >> shift) & 1)) >> shift;
    }
    return (uint16_t) GGML_TURBO_ROUND_STEP(h);
}

// Choose the codes of this thread's 8 values and d, as quantize_row_turbo*_ref do. The whole simdgroup has the same block.
static inline uint16_t turbo_quantize_block(constant ggml_turbo_codebook & cb,
                                            device const float *      src,
                                            ushort                    tiisg,
                                            thread short *            codes) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    const short lane = tiisg % 8;
    const short slot = tiisg / 8;

    turbo_values v;
    const uint32_t top = turbo_load((device const uint32_t *) src, lane, v);
    if (top == 0 || top > 0x7f7fffff) {
        for (short i = 0; i < 8; ++i) {
            codes[i] = 0;
        }
        return top == 0 ? 0 : GGML_TURBO_NAN;
    }

    const float amax = as_type<float>(top);
    const float unit = precise::divide(precise::sqrt(v.norm2 * (1.0f / QK_TURBO)), cb.sigma);

    float4 gain[TURBO_N_ROUNDS];
    for (short r = 0; r < TURBO_N_ROUNDS; ++r) {
        const short t = min((short) (TURBO_N_SLOTS * r + slot), (short) (cb.n_trials - 1));
        gain[r]       = turbo_gain(cb, v, unit * cb.trials[t]);
    }

    short       wide;
    const short best = turbo_choose(cb, gain, wide);

    float    fit  = turbo_assign(cb, v, precise::divide(1.0f, unit * cb.trials[best]), wide, codes);
    uint16_t step = turbo_round_step(fit * amax);
    if (step != 0) {
        fit  = turbo_assign(cb, v, precise::divide(amax, turbo_step(step << 1)), wide, codes);
        step = turbo_round_step(fit * amax);
    }

    return step << 1 | wide;
}

// One byte of the codes' lower two bits for each thread of the first two slots. Thread (slot, lane) has values 8*slot +
// lane + 16*g of all four groups g.
template <typename block> static inline void turbo_store_pairs(thread const short * codes, ushort tiisg, device block & y) {
    short byte0 = 0;
    short byte1 = 0;
    for (short g = 0; g < 4; ++g) {
        byte0 |= (codes[2 * g + 0] & 3) << (2 * g);
        byte1 |= (codes[2 * g + 1] & 3) << (2 * g);
    }
    if (tiisg < 16) {
        y.qs[tiisg] = tiisg < 8 ? byte0 : byte1;
    }
}

static inline void turbo_quantize(device const float * src, device block_turbo2 & y, ushort tiisg) {
    short codes[8];
    const uint16_t d = turbo_quantize_block(turbo2_codebook, src, tiisg, codes);
    if (tiisg == 0) {
        y.d = d;
    }
    turbo_store_pairs(codes, tiisg, y);
}

static inline void turbo_quantize(device const float * src, device block_turbo3 & y, ushort tiisg) {
    short codes[8];
    const uint16_t d = turbo_quantize_block(turbo3_codebook, src, tiisg, codes);
    if (tiisg == 0) {
        y.d = d;
    }
    turbo_store_pairs(codes, tiisg, y);

    // bit lane of byte i is the third bit of value 8*i + lane
    uint2 hi = uint2(0, 0);
    for (short i = 0; i < 4; ++i) {
        hi[0] |= (uint32_t) (codes[i + 0] >> 2) << (8 * i + tiisg % 8);
        hi[1] |= (uint32_t) (codes[i + 4] >> 2) << (8 * i + tiisg % 8);
    }
    hi |= simd_shuffle_xor(hi, 4);
    hi |= simd_shuffle_xor(hi, 2);
    hi |= simd_shuffle_xor(hi, 1);
    if (tiisg < 8) {
        y.qh[tiisg] = (hi[tiisg / 4] >> (8 * (tiisg % 4))) & 0xff;
    }
}

static inline void turbo_quantize(device const float * src, device block_turbo4 & y, ushort tiisg) {
    short codes[8];
    const uint16_t d = turbo_quantize_block(turbo4_codebook, src, tiisg, codes);
    if (tiisg == 0) {
        y.d = d;
    }
    for (short i = 0; i < 4; ++i) {
        if (tiisg / 8 == i) {
            y.qs[tiisg] = codes[i] | (codes[i + 4] << 4);
        }
    }
}

//
// SET_ROWS and CPY from f32: a simdgroup for each block, see ggml-metal-turbo.cpp
//

template <typename TI, typename block>
kernel void kernel_set_rows_turbo(
        constant ggml_metal_kargs_set_rows & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiisg[[thread_index_in_simdgroup]],
        ushort  sgitg[[simdgroup_index_in_threadgroup]],
        ushort    nsg[[simdgroups_per_threadgroup]]) {
    const int64_t ib  = (int64_t) tgpig.x*nsg + sgitg;
    const int64_t i01 = ib/args.nk0;
    const int64_t ik  = ib%args.nk0;
    if (i01 >= args.ne01) {
        return;
    }

    const int32_t i02 = tgpig.y;
    const int32_t i03 = tgpig.z;

    const int32_t i11 = i02%args.ne11;
    const int32_t i12 = i03%args.ne12;

    const TI i1 = ((device const TI *) (src1 + i01*args.nb10 + i11*args.nb11 + i12*args.nb12))[0];

    device const float * x = (device const float *) (src0 + i01*args.nb01 + i02*args.nb02 + i03*args.nb03) + QK_TURBO*ik;
    device       block * y = (device       block *) (dst  +  i1*args.nb1  + i02*args.nb2  + i03*args.nb3)  + ik;

    turbo_quantize(x, *y, tiisg);
}

template <typename block>
kernel void kernel_cpy_f32_turbo(
        constant ggml_metal_kargs_cpy & args,
        device const char * src0,
        device       char * dst,
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiisg[[thread_index_in_simdgroup]],
        ushort  sgitg[[simdgroup_index_in_threadgroup]],
        ushort    nsg[[simdgroups_per_threadgroup]]) {
    const int64_t ib  = (int64_t) tgpig.x*nsg + sgitg;
    const int64_t i01 = ib/args.nk0;
    const int64_t ik  = ib%args.nk0;
    if (i01 >= args.ne01) {
        return;
    }

    const int64_t i02 = tgpig.y;
    const int64_t i03 = tgpig.z;

    // position of the block's first value among all values, then in dst
    const int64_t n = ((i03*args.ne02 + i02)*args.ne01 + i01)*args.ne00 + QK_TURBO*ik;

    const int64_t i0 = n%args.ne0;
    const int64_t i1 = n/args.ne0%args.ne1;
    const int64_t i2 = n/(args.ne0*args.ne1)%args.ne2;
    const int64_t i3 = n/(args.ne0*args.ne1*args.ne2);

    device const float * x = (device const float *) (src0 + i01*args.nb01 + i02*args.nb02 + i03*args.nb03) + QK_TURBO*ik;
    device       block * y = (device       block *) (dst  +  i1*args.nb1  +  i2*args.nb2  +  i3*args.nb3)  + i0/QK_TURBO;

    turbo_quantize(x, *y, tiisg);
}

typedef decltype(kernel_set_rows_turbo<int64_t, block_turbo2>) set_rows_turbo_t;

template [[host_name("kernel_set_rows_f32_i64_turbo2")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int64_t, block_turbo2>;
template [[host_name("kernel_set_rows_f32_i64_turbo3")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int64_t, block_turbo3>;
template [[host_name("kernel_set_rows_f32_i64_turbo4")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int64_t, block_turbo4>;
template [[host_name("kernel_set_rows_f32_i32_turbo2")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int32_t, block_turbo2>;
template [[host_name("kernel_set_rows_f32_i32_turbo3")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int32_t, block_turbo3>;
template [[host_name("kernel_set_rows_f32_i32_turbo4")]] kernel set_rows_turbo_t kernel_set_rows_turbo<int32_t, block_turbo4>;

typedef decltype(kernel_cpy_f32_turbo<block_turbo2>) cpy_f32_turbo_t;

template [[host_name("kernel_cpy_f32_turbo2")]] kernel cpy_f32_turbo_t kernel_cpy_f32_turbo<block_turbo2>;
template [[host_name("kernel_cpy_f32_turbo3")]] kernel cpy_f32_turbo_t kernel_cpy_f32_turbo<block_turbo3>;
template [[host_name("kernel_cpy_f32_turbo4")]] kernel cpy_f32_turbo_t kernel_cpy_f32_turbo<block_turbo4>;

//
// MUL_MAT with few columns: a simdgroup for each N_R0_TURBO rows
//

constant short FC_mul_mv_nsg  [[function_constant(FC_MUL_MV + 0)]];
constant short FC_mul_mv_ne12 [[function_constant(FC_MUL_MV + 2)]];
constant short FC_mul_mv_r2   [[function_constant(FC_MUL_MV + 3)]];
constant short FC_mul_mv_r3   [[function_constant(FC_MUL_MV + 4)]];

template <typename block, void (*dequantize_t4)(device const block *, short, thread float4 &)>
kernel void kernel_mul_mv_turbo_f32(
        constant ggml_metal_kargs_mul_mv & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiisg[[thread_index_in_simdgroup]],
        ushort  sgitg[[simdgroup_index_in_threadgroup]]) {
    const int r0 = (tgpig.x*FC_mul_mv_nsg + sgitg)*N_R0_TURBO;
    const int r1 = tgpig.y;
    const int im = tgpig.z;

    const int i12 = im%FC_mul_mv_ne12;
    const int i13 = im/FC_mul_mv_ne12;

    device const char   * x = src0 + (i12/FC_mul_mv_r2)*args.nb02 + (i13/FC_mul_mv_r3)*args.nb03;
    device const float4 * y = (device const float4 *) (src1 + r1*args.nb11 + i12*args.nb12 + i13*args.nb13);

    float sum[N_R0_TURBO] = { 0.0f };

    for (int i = tiisg; i < args.ne00/4; i += N_SIMDWIDTH) {
        const float4 b = y[i];
        for (short r = 0; r < N_R0_TURBO && r0 + r < args.ne01; ++r) {
            float4 a;
            dequantize_t4((device const block *) (x + (r0 + r)*args.nb01) + i/(QK_TURBO/4), i%(QK_TURBO/4), a);
            sum[r] += dot(a, b);
        }
    }

    device float * z = (device float *) dst + (int64_t) im*args.ne0*args.ne1 + (int64_t) r1*args.ne0;

    for (short r = 0; r < N_R0_TURBO && r0 + r < args.ne01; ++r) {
        const float total = simd_sum(sum[r]);
        if (tiisg == 0) {
            z[r0 + r] = total;
        }
    }
}

typedef decltype(kernel_mul_mv_turbo_f32<block_turbo2, dequantize_turbo2_t4>) mul_mv_turbo_t;

template [[host_name("kernel_mul_mv_turbo2_f32")]] kernel mul_mv_turbo_t kernel_mul_mv_turbo_f32<block_turbo2, dequantize_turbo2_t4>;
template [[host_name("kernel_mul_mv_turbo3_f32")]] kernel mul_mv_turbo_t kernel_mul_mv_turbo_f32<block_turbo3, dequantize_turbo3_t4>;
template [[host_name("kernel_mul_mv_turbo4_f32")]] kernel mul_mv_turbo_t kernel_mul_mv_turbo_f32<block_turbo4, dequantize_turbo4_t4>;
