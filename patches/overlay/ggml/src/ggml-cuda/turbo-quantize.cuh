#pragma once

// A warp of 32 threads quantizes a block of 64 values to the bytes that ggml-turbo.c gives. Plain C++ behind the tests' shim
// as well, see turbo-block.cuh.

#include "turbo-block.cuh"

// One rounding each and denormals kept, whatever the compiler's flags: nvcc's -use_fast_math, which ggml-cuda is compiled
// with, contracts, divides approximately and, even in the __f*_rn functions, takes denormals for zero.
#ifdef __CUDA_ARCH__
static __device__ __forceinline__ float turbo_add(const float a, const float b) {
    float r;
    asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static __device__ __forceinline__ float turbo_sub(const float a, const float b) {
    float r;
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static __device__ __forceinline__ float turbo_mul(const float a, const float b) {
    float r;
    asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static __device__ __forceinline__ float turbo_div(const float a, const float b) {
    float r;
    asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static __device__ __forceinline__ float turbo_sqrt(const float a) {
    float r;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a));
    return r;
}
#else
static __device__ __forceinline__ float turbo_add(const float a, const float b) {
    return __fadd_rn(a, b);
}

static __device__ __forceinline__ float turbo_sub(const float a, const float b) {
    return __fsub_rn(a, b);
}

static __device__ __forceinline__ float turbo_mul(const float a, const float b) {
    return __fmul_rn(a, b);
}

static __device__ __forceinline__ float turbo_div(const float a, const float b) {
    return __fdiv_rn(a, b);
}

static __device__ __forceinline__ float turbo_sqrt(const float a) {
    return __fsqrt_rn(a);
}
#endif  // __CUDA_ARCH__

// Thread 8*g + l of a warp owns values 16*g + l and 16*g + l + 8 of the block, those that lane l of the reference's sums
// sees in group g.

#define TURBO_WARP_MASK 0xFFFFFFFF

// ((0+4)+(2+6))+((1+5)+(3+7)) over the 8 threads of a group, in each of them
static __device__ __forceinline__ float turbo_sum_lanes(float v) {
#pragma unroll
    for (int mask = 4; mask > 0; mask >>= 1) {
        v = turbo_add(v, __shfl_xor_sync(TURBO_WARP_MASK, v, mask, 32));
    }
    return v;
}

// the sum over the block, in every thread: each lane adds its values in the order of the groups
static __device__ __forceinline__ float turbo_sum_block(const float v0, const float v1) {
    const int l   = threadIdx.x % 8;
    float     sum = 0.0f;
#pragma unroll
    for (int g = 0; g < GGML_TURBO_N_GROUPS; ++g) {
        sum = turbo_add(sum, __shfl_sync(TURBO_WARP_MASK, v0, 8 * g + l, 32));
        sum = turbo_add(sum, __shfl_sync(TURBO_WARP_MASK, v1, 8 * g + l, 32));
    }
    return turbo_sum_lanes(sum);
}

// the OR over threads that differ in the bits of `lanes`, in each of them
static __device__ __forceinline__ uint32_t turbo_or(uint32_t v, const int lanes) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        if (lanes & mask) {
            v |= __shfl_xor_sync(TURBO_WARP_MASK, v, mask, 32);
        }
    }
    return v;
}

// the magnitude that is nearest to a, and its position
template <typename block_t>
static __device__ __forceinline__ float turbo_nearest(const bool wide, const float a, int & m) {
    using codec     = turbo_codec<block_t>;
    float magnitude = wide ? codec::magnitude(1, 0) : codec::magnitude(0, 0);
    m               = 0;
#pragma unroll
    for (int i = 0; i < codec::n - 1; ++i) {
        const bool above = a > (wide ? codec::edge(1, i) : codec::edge(0, i));
        m += above;
        if (above) {
            magnitude = wide ? codec::magnitude(1, i + 1) : codec::magnitude(0, i + 1);
        }
    }
    return magnitude;
}

// how much smaller the squared error of this thread's group is with narrow levels times step than with zeros
template <typename block_t>
static __device__ __forceinline__ float turbo_gain(const float a0, const float a1, const float step) {
    const float inv_step = turbo_div(1.0f, step);
    int         m;
    const float l0  = turbo_nearest<block_t>(false, turbo_mul(a0, inv_step), m);
    const float l1  = turbo_nearest<block_t>(false, turbo_mul(a1, inv_step), m);
    const float sum = turbo_sum_lanes(turbo_add(turbo_mul(a0, l0), turbo_mul(a1, l1)));
    const float ll  = turbo_sum_lanes(turbo_add(turbo_mul(l0, l0), turbo_mul(l1, l1)));
    return turbo_mul(step, turbo_sub(turbo_add(sum, sum), turbo_mul(step, ll)));
}

// the positions of this thread's nearest magnitudes, and the step that fits all of the block best
template <typename block_t>
static __device__ __forceinline__ float turbo_assign(const float a0,
                                                     const float a1,
                                                     const float norm2,
                                                     const float inv_step,
                                                     const bool  wide,
                                                     int &       m0,
                                                     int &       m1) {
    const float l0      = turbo_nearest<block_t>(wide, turbo_mul(a0, inv_step), m0);
    const float l1      = turbo_nearest<block_t>(wide, turbo_mul(a1, inv_step), m1);
    const float xl      = turbo_sum_block(turbo_mul(a0, l0), turbo_mul(a1, l1));
    const float ll      = turbo_sum_block(turbo_mul(l0, l0), turbo_mul(l1, l1));
    const float squares = turbo_div(xl, ll);
    const float norm    = turbo_sqrt(turbo_div(norm2, ll));
    return turbo_add(squares, turbo_mul(turbo_codec<block_t>::norm_weight, turbo_sub(norm, squares)));
}

static __device__ __forceinline__ uint16_t turbo_round_step(const float step) {
    const float    x = turbo_div(step, GGML_TURBO_STEP_UNIT);
    const uint16_t h = __half_as_ushort(__float2half_rn(x < 65504.0f ? x : 65504.0f));
    return GGML_TURBO_ROUND_STEP(h);
}

// Write this thread's codes c0 (value 16*g + l) and c1 (value 16*g + l + 8).
static __device__ __forceinline__ void turbo_pack_low_bits(uint8_t * qs, const int lane, const int c0, const int c1) {
    const int      g    = lane / 8;
    const uint32_t both = turbo_or((uint32_t) ((c0 & 3) | (c1 & 3) << 8) << (2 * g), 8 | 16);
    if (g < 2) {
        qs[lane] = both >> (8 * g);
    }
}

static __device__ __forceinline__ void turbo_pack(block_turbo2 * y, const int lane, const int c0, const int c1) {
    turbo_pack_low_bits(y->qs, lane, c0, c1);
}

static __device__ __forceinline__ void turbo_pack(block_turbo3 * y, const int lane, const int c0, const int c1) {
    turbo_pack_low_bits(y->qs, lane, c0, c1);

    const int      l    = lane % 8;
    const uint32_t both = turbo_or((uint32_t) (c0 >> 2 | (c1 >> 2) << 8) << l, 1 | 2 | 4);
    if (l < 2) {
        y->qh[2 * (lane / 8) + l] = both >> (8 * l);
    }
}

static __device__ __forceinline__ void turbo_pack(block_turbo4 * y, const int lane, const int c0, const int c1) {
    const uint32_t both = turbo_or((uint32_t) (c0 | c1 << 8) << (4 * (lane / 16)), 16);
    if (lane < 16) {
        const int i  = 16 * (lane / 8) + lane % 8;
        y->qs[i]     = both;
        y->qs[i + 8] = both >> 8;
    }
}

// Quantize x[64] to y with a warp: all 32 threads of it must come here, with the same x and y.
//
// Comparisons of floats take denormals for zero as well, so what may be denormal is compared as bits.
template <typename block_t> static __device__ void turbo_quantize_block(const float * x, block_t * y) {
    using codec = turbo_codec<block_t>;

    const int lane = threadIdx.x % 32;
    const int i    = 16 * (lane / 8) + lane % 8;

    const float x0 = x[i];
    const float x1 = x[i + 8];

    uint32_t amax_bits = max(__float_as_uint(x0) & 0x7fffffff, __float_as_uint(x1) & 0x7fffffff);
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        amax_bits = max(amax_bits, __shfl_xor_sync(TURBO_WARP_MASK, amax_bits, mask, 32));
    }

    uint16_t d  = amax_bits == 0 ? 0 : GGML_TURBO_NAN;
    int      c0 = 0;
    int      c1 = 0;

    if (amax_bits != 0 && amax_bits < 0x7f800000) {
        const float    amax = __uint_as_float(amax_bits);
        const uint32_t s0   = __float_as_uint(turbo_div(x0, amax));
        const uint32_t s1   = __float_as_uint(turbo_div(x1, amax));
        const float    a0   = __uint_as_float(s0 & 0x7fffffff);
        const float    a1   = __uint_as_float(s1 & 0x7fffffff);

        const float norm2 = turbo_sum_block(turbo_mul(a0, a0), turbo_mul(a1, a1));
        const float unit  = turbo_div(turbo_sqrt(turbo_div(norm2, QK_TURBO)), codec::sigma);

        float gain[codec::n_trials];
#pragma unroll
        for (int t = 0; t < codec::n_trials; ++t) {
            gain[t] = turbo_gain<block_t>(a0, a1, turbo_mul(unit, codec::trial(t)));
        }

        // as ggml_turbo_choose
        float best_total = -INFINITY;
        float best_trial = 0.0f;
        bool  wide       = false;
#pragma unroll
        for (int t = 0; t < codec::n_trials - 2; ++t) {
            const bool wider = gain[t + 2] > gain[t];
            float      total = wider ? gain[t + 2] : gain[t];
            total            = turbo_add(total, __shfl_xor_sync(TURBO_WARP_MASK, total, 16, 32));
            total            = turbo_add(total, __shfl_xor_sync(TURBO_WARP_MASK, total, 8, 32));
            if (total > best_total) {
                best_total = total;
                best_trial = codec::trial(t);
                wide       = wider;
            }
        }

        int      m0, m1;
        float    inv_step = turbo_div(1.0f, turbo_mul(unit, best_trial));
        float    fit      = turbo_assign<block_t>(a0, a1, norm2, inv_step, wide, m0, m1);
        uint16_t step     = turbo_round_step(turbo_mul(fit, amax));
        if (step != 0) {
            inv_step = turbo_div(amax, turbo_mul(__half2float(__ushort_as_half(step)), GGML_TURBO_STEP_UNIT));
            fit      = turbo_assign<block_t>(a0, a1, norm2, inv_step, wide, m0, m1);
            step     = turbo_round_step(turbo_mul(fit, amax));
        }

        // negative, and not a zero
        c0 = s0 > 0x80000000 ? codec::n - 1 - m0 : codec::n + m0;
        c1 = s1 > 0x80000000 ? codec::n - 1 - m1 : codec::n + m1;
        d  = step << 1 | turbo_or((uint32_t) wide << (lane / 8), 8 | 16);
    }

    turbo_pack(y, lane, c0, c1);
    if (lane == 0) {
        y->d = d;
    }
}
