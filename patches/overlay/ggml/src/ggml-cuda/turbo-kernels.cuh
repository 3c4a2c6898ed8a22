#pragma once

// Kernels that quantize to turbo types and decode them. Plain C++ behind the tests' shim as well, see turbo-block.cuh.

#include "turbo-quantize.cuh"

#include <type_traits>

#define CUDA_TURBO_WARPS   4  // a block of threads quantizes as many blocks of values
#define CUDA_TURBO_THREADS 256

template <typename dst_t> static __device__ __forceinline__ dst_t turbo_cast(const float v) {
    if constexpr (std::is_same_v<dst_t, half>) {
        return __float2half_rn(v);
    } else if constexpr (std::is_same_v<dst_t, nv_bfloat16>) {
        return __float2bfloat16_rn(v);
    } else {
        return v;
    }
}

// Four numbers of elements or strides, of whatever unit a kernel says.
struct turbo_index {
    int64_t i[4];
};

// the position of element i of a tensor of shape ne[0] x ne[1] x ne[2] x any
static __device__ __forceinline__ turbo_index turbo_unflatten(uint32_t i, const turbo_index & ne) {
    turbo_index pos;
#pragma unroll
    for (int d = 0; d < 3; ++d) {
        const uint32_t n = ne.i[d];

        pos.i[d] = i % n;
        i /= n;
    }
    pos.i[3] = i;
    return pos;
}

static __device__ __forceinline__ int64_t turbo_offset(const turbo_index & pos, const turbo_index & nb) {
    return pos.i[0] * nb.i[0] + pos.i[1] * nb.i[1] + pos.i[2] * nb.i[2] + pos.i[3] * nb.i[3];
}

// Blocks of rows of src go to the rows of dst that src1 names. ne: shape of src, in blocks of 64 values along a row;
// nb: bytes from one to the next, those of src per block; ne11, ne12: shape of src1.
template <typename idx_t, typename block_t>
static __global__ void k_turbo_set_rows(const char * src,
                                        const char * src1,
                                        char *       dst,
                                        uint32_t     n_blocks,
                                        turbo_index  ne,
                                        turbo_index  nb,
                                        turbo_index  nb1,
                                        turbo_index  nbd,
                                        int64_t      ne11,
                                        int64_t      ne12) {
    const uint32_t i = blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= n_blocks) {
        return;
    }

    const turbo_index from = turbo_unflatten(i, ne);
    const idx_t       row =
        *(const idx_t *) (src1 + from.i[1] * nb1.i[0] + (from.i[2] % ne11) * nb1.i[1] + (from.i[3] % ne12) * nb1.i[2]);

    turbo_index to = from;
    to.i[1]        = row;

    turbo_quantize_block((const float *) (src + turbo_offset(from, nb)), (block_t *) (dst + turbo_offset(to, nbd)));
}

// Copies blocks of src to dst in the order of their elements, which may have another shape. ne, ned: shapes, in blocks
// along a row; nb, nbd: bytes, those of the first dimension per block.
template <typename block_t>
static __global__ void k_turbo_cpy_f32_q(const char * src,
                                         char *       dst,
                                         uint32_t     n_blocks,
                                         turbo_index  ne,
                                         turbo_index  nb,
                                         turbo_index  ned,
                                         turbo_index  nbd) {
    const uint32_t i = blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= n_blocks) {
        return;
    }

    turbo_quantize_block((const float *) (src + turbo_offset(turbo_unflatten(i, ne), nb)),
                         (block_t *) (dst + turbo_offset(turbo_unflatten(i, ned), nbd)));
}

// the opposite; a thread decodes 4 values
template <typename block_t>
static __global__ void k_turbo_cpy_q_f32(const char * src,
                                         char *       dst,
                                         uint32_t     n_blocks,
                                         turbo_index  ne,
                                         turbo_index  nb,
                                         turbo_index  ned,
                                         turbo_index  nbd) {
    const int      j = 4 * (threadIdx.x % (QK_TURBO / 4));
    const uint32_t b = blockIdx.x * (blockDim.x / (QK_TURBO / 4)) + threadIdx.x / (QK_TURBO / 4);
    if (b >= n_blocks) {
        return;
    }

    float v[4];
    turbo_decode_4((const block_t *) (src + turbo_offset(turbo_unflatten(b, ne), nb)), j, v);

    float * y = (float *) (dst + turbo_offset(turbo_unflatten(b, ned), nbd)) + j;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        y[k] = v[k];
    }
}

// Rows of src that src1 names. Blocks of threads: x a row of src1, y a part of the row, z the rest of src1's shape. All nb in
// bytes.
template <typename block_t, typename dst_t>
static __global__ void k_turbo_get_rows(const char * src,
                                        const char * src1,
                                        char *       dst,
                                        int64_t      ne00,
                                        int64_t      ne11,
                                        int64_t      ne12,
                                        turbo_index  nb,
                                        turbo_index  nb1,
                                        turbo_index  nbd) {
    const int64_t i10 = blockIdx.x;

    for (int64_t z = blockIdx.z; z < ne11 * ne12; z += gridDim.z) {
        const int64_t i11 = z / ne12;
        const int64_t i12 = z % ne12;
        const int64_t row = *(const int32_t *) (src1 + i10 * nb1.i[0] + i11 * nb1.i[1] + i12 * nb1.i[2]);

        const block_t * x = (const block_t *) (src + row * nb.i[1] + i11 * nb.i[2] + i12 * nb.i[3]);
        dst_t *         y = (dst_t *) (dst + i10 * nbd.i[1] + i11 * nbd.i[2] + i12 * nbd.i[3]);

        for (int64_t j = 4 * ((int64_t) blockIdx.y * blockDim.x + threadIdx.x); j < ne00;
             j += 4 * (int64_t) gridDim.y * blockDim.x) {
            float v[4];
            turbo_decode_4(x + j / QK_TURBO, j % QK_TURBO, v);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                y[j + k] = turbo_cast<dst_t>(v[k]);
            }
        }
    }
}

// Rows of blocks to contiguous values. nb: strides in blocks. Blocks of threads: x a part of a row, y a row, z the rest.
template <typename block_t, typename dst_t>
static __global__ void
k_turbo_convert(const void * src, dst_t * dst, int64_t ne00, int64_t ne01, int64_t ne02, int64_t ne03, turbo_index nb) {
    const int64_t j = 4 * ((int64_t) blockIdx.x * blockDim.x + threadIdx.x);
    if (j >= ne00) {
        return;
    }

    for (int64_t i01 = blockIdx.y; i01 < ne01; i01 += gridDim.y) {
        for (int64_t i0203 = blockIdx.z; i0203 < ne02 * ne03; i0203 += gridDim.z) {
            const block_t * x =
                (const block_t *) src + i01 * nb.i[1] + (i0203 % ne02) * nb.i[2] + (i0203 / ne02) * nb.i[3];

            float v[4];
            turbo_decode_4(x + j / QK_TURBO, j % QK_TURBO, v);

            // dst is the start of an allocation, so that one store serves
            struct alignas(4 * sizeof(dst_t)) {
                dst_t v[4];
            } out;

#pragma unroll
            for (int k = 0; k < 4; ++k) {
                out.v[k] = turbo_cast<dst_t>(v[k]);
            }
            *(decltype(out) *) (dst + (i0203 * ne01 + i01) * ne00 + j) = out;
        }
    }
}
