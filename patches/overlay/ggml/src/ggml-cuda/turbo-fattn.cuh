#pragma once

// What upstream's vector kernel for flash attention needs of a turbo K or V: products with a row of K, and decoded V.
// Plain C++ behind the tests' shim as well, see turbo-block.cuh.

#include "turbo-block.cuh"

#include <type_traits>

template <ggml_type type> struct turbo_block;

template <> struct turbo_block<GGML_TYPE_TURBO2> {
    using t = block_turbo2;
};

template <> struct turbo_block<GGML_TYPE_TURBO3> {
    using t = block_turbo3;
};

template <> struct turbo_block<GGML_TYPE_TURBO4> {
    using t = block_turbo4;
};

static constexpr __host__ __device__ bool turbo_is_turbo(const ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

// This thread's part of the product of a row of K with Q, which is in q8_1 with the scales as floats.
template <ggml_type type_K, int D, int nthreads>
static __device__ __forceinline__ float vec_dot_fattn_vec_KQ_turbo(const char * __restrict__ K_c,
                                                                   const void * __restrict__ Q_v,
                                                                   const int * __restrict__ Q_q8,
                                                                   const void * __restrict__ Q_ds_v) {
    using block_t = typename turbo_block<type_K>::t;

    const block_t * K    = (const block_t *) K_c;
    const float2 *  Q_ds = (const float2 *) Q_ds_v;
    GGML_UNUSED(Q_v);

    float sum = 0.0f;

#pragma unroll
    for (int k_KQ_0 = 0; k_KQ_0 < int(D / sizeof(int)); k_KQ_0 += nthreads) {
        const int j  = 4 * (k_KQ_0 + int(threadIdx.x) % nthreads);
        const int ib = j / QK_TURBO;

        const int sumi = ggml_cuda_dp4a(turbo_levels_4(K + ib, j % QK_TURBO), Q_q8[k_KQ_0 / nthreads], 0);

        sum += turbo_step(K[ib].d) * (sumi * Q_ds[k_KQ_0 / nthreads].x);
    }

    return sum;
}

// Values i0..i0 + 3 of a row of V.
template <ggml_type type_V, typename T, int ne>
static __device__ __forceinline__ void dequantize_V_turbo(const void * __restrict__ vx,
                                                          void * __restrict__ dst,
                                                          const int64_t i0) {
    static_assert(ne == 4, "bad ne");

    const auto * x = (const typename turbo_block<type_V>::t *) vx + i0 / QK_TURBO;
    const int    j = i0 % QK_TURBO;

#ifdef FP16_AVAILABLE
    if constexpr (std::is_same_v<T, half>) {
        // 0x6400 | b is the half 1024 + b, so (it - 1152)/64 is level/64 without a conversion, and without rounding; the
        // only rounding is that of the product, as if a float had been converted.
        const uint32_t biased = turbo_levels_4(x, j) ^ 0x80808080;
        const half2    step   = __half2half2(__ushort_as_half(GGML_TURBO_STEP(x->d)));

#    pragma unroll
        for (int l = 0; l < 2; ++l) {
            const uint32_t bits = __byte_perm(biased, 0x64646464, l == 0 ? 0x4140 : 0x4342);
            half2          h;
            memcpy(&h, &bits, sizeof(h));
            ((half2 *) dst)[l] = __hmul2(__hfma2(h, __float2half2_rn(1.0f / 64), __float2half2_rn(-18.0f)), step);
        }
    } else
#endif  // FP16_AVAILABLE
        if constexpr (std::is_same_v<T, float>) {
            turbo_decode_4(x, j, (float *) dst);
        } else {
            static_assert(std::is_same_v<T, void>, "bad type");
        }
}

// get_vec_dot_KQ and get_dequantize_V of fattn-common.cuh, and the turbo types: upstream's kernel gets both.
template <ggml_type type_K, int D, int nthreads> static constexpr __device__ auto turbo_get_vec_dot_KQ() {
    if constexpr (turbo_is_turbo(type_K)) {
        return vec_dot_fattn_vec_KQ_turbo<type_K, D, nthreads>;
    } else {
        return get_vec_dot_KQ<type_K, D, nthreads>();
    }
}

template <ggml_type type_V, typename T, int ne> static constexpr __device__ auto turbo_get_dequantize_V() {
    if constexpr (turbo_is_turbo(type_V)) {
        return dequantize_V_turbo<type_V, T, ne>;
    } else {
        return get_dequantize_V<type_V, T, ne>();
    }
}

#define get_vec_dot_KQ   turbo_get_vec_dot_KQ
#define get_dequantize_V turbo_get_dequantize_V

// The pairs of K and V with a turbo type. turbo.cmake chooses those for which upstream's vector kernel is compiled and defines
// GGML_CUDA_FA_*, which FATTN_VEC_CASES_ALL_D looks at. A backend that is built without it, such as HIP, has none.
#ifdef GGML_CUDA_FA_TURBO
#    define FATTN_VEC_TURBO_ONE_K(X, type_K) X(type_K, TURBO2) X(type_K, TURBO3) X(type_K, TURBO4)
#    define FATTN_VEC_TURBO_ONE_V(X, type_V) X(TURBO2, type_V) X(TURBO3, type_V) X(TURBO4, type_V)

#    define FATTN_VEC_TURBO_PAIRS(X)     \
        FATTN_VEC_TURBO_ONE_K(X, TURBO2) \
        FATTN_VEC_TURBO_ONE_K(X, TURBO3) \
        FATTN_VEC_TURBO_ONE_K(X, TURBO4) \
        FATTN_VEC_TURBO_ONE_K(X, F16)    \
        FATTN_VEC_TURBO_ONE_K(X, BF16)   \
        FATTN_VEC_TURBO_ONE_K(X, Q4_0)   \
        FATTN_VEC_TURBO_ONE_K(X, Q4_1)   \
        FATTN_VEC_TURBO_ONE_K(X, Q5_0)   \
        FATTN_VEC_TURBO_ONE_K(X, Q5_1)   \
        FATTN_VEC_TURBO_ONE_K(X, Q8_0)   \
        FATTN_VEC_TURBO_ONE_V(X, F16)    \
        FATTN_VEC_TURBO_ONE_V(X, BF16)   \
        FATTN_VEC_TURBO_ONE_V(X, Q4_0)   \
        FATTN_VEC_TURBO_ONE_V(X, Q4_1)   \
        FATTN_VEC_TURBO_ONE_V(X, Q5_0)   \
        FATTN_VEC_TURBO_ONE_V(X, Q5_1)   \
        FATTN_VEC_TURBO_ONE_V(X, Q8_0)
#else
#    define FATTN_VEC_TURBO_PAIRS(X)
#endif  // GGML_CUDA_FA_TURBO

#define EXTERN_DECL_FATTN_VEC_TURBO(type_K, type_V)                          \
    extern DECL_FATTN_VEC_CASE(64, GGML_TYPE_##type_K, GGML_TYPE_##type_V);  \
    extern DECL_FATTN_VEC_CASE(128, GGML_TYPE_##type_K, GGML_TYPE_##type_V); \
    extern DECL_FATTN_VEC_CASE(256, GGML_TYPE_##type_K, GGML_TYPE_##type_V);
