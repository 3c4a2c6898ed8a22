#include "convert.cuh"
#include "fattn.cuh"
#include "turbo-kernels.cuh"
#include "turbo.cuh"

#include <algorithm>

// bytes
static turbo_index turbo_strides(const ggml_tensor * t) {
    return { (int64_t) t->nb[0], (int64_t) t->nb[1], (int64_t) t->nb[2], (int64_t) t->nb[3] };
}

// the shape in blocks of values along a row
static turbo_index turbo_block_shape(const ggml_tensor * t) {
    return { t->ne[0] / QK_TURBO, t->ne[1], t->ne[2], t->ne[3] };
}

// bytes from a block to the next: a turbo type's nb[0] is that already
static turbo_index turbo_block_strides(const ggml_tensor * t) {
    turbo_index nb = turbo_strides(t);
    nb.i[0]        = ggml_is_turbo(t->type) ? nb.i[0] : QK_TURBO * nb.i[0];
    return nb;
}

static uint32_t turbo_n_blocks(const ggml_tensor * t) {
    const int64_t n = ggml_nelements(t) / QK_TURBO;
    GGML_ASSERT(n <= INT_MAX);
    return n;
}

// calls f with a null pointer to a block of the type
template <typename F> static void turbo_with_block(const ggml_type type, F && f) {
    switch (type) {
        case GGML_TYPE_TURBO2:
            return f((block_turbo2 *) nullptr);
        case GGML_TYPE_TURBO3:
            return f((block_turbo3 *) nullptr);
        case GGML_TYPE_TURBO4:
            return f((block_turbo4 *) nullptr);
        default:
            GGML_ABORT("%s is not a turbo type", ggml_type_name(type));
    }
}

//
// SET_ROWS, CPY, GET_ROWS
//

static void turbo_set_rows(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    const ggml_tensor * src  = dst->src[0];
    const ggml_tensor * src1 = dst->src[1];

    const uint32_t n_blocks = turbo_n_blocks(src);
    if (n_blocks == 0) {
        return;
    }

    turbo_with_block(dst->type, [&](auto * block) {
        using block_t = std::remove_pointer_t<decltype(block)>;

        const auto kernel =
            src1->type == GGML_TYPE_I64 ? k_turbo_set_rows<int64_t, block_t> : k_turbo_set_rows<int32_t, block_t>;
        kernel<<<(n_blocks + CUDA_TURBO_WARPS - 1) / CUDA_TURBO_WARPS, dim3(32, CUDA_TURBO_WARPS), 0, ctx.stream()>>>(
            (const char *) src->data, (const char *) src1->data, (char *) dst->data, n_blocks, turbo_block_shape(src),
            turbo_block_strides(src), turbo_strides(src1), turbo_block_strides(dst), src1->ne[1], src1->ne[2]);
    });
}

// false: not between f32 and a turbo type
static bool turbo_cpy(ggml_backend_cuda_context & ctx, const ggml_tensor * src0, ggml_tensor * src1) {
    const bool quantize = src0->type == GGML_TYPE_F32 && ggml_is_turbo(src1->type);
    const bool decode   = ggml_is_turbo(src0->type) && src1->type == GGML_TYPE_F32;
    if (!quantize && !decode) {
        return false;
    }

    const uint32_t n_blocks = turbo_n_blocks(src0);
    if (n_blocks == 0) {
        return true;
    }

    turbo_with_block(quantize ? src1->type : src0->type, [&](auto * block) {
        using block_t = std::remove_pointer_t<decltype(block)>;

        constexpr int blocks_per_cuda_block = CUDA_TURBO_THREADS / (QK_TURBO / 4);

        const int  n      = quantize ? CUDA_TURBO_WARPS : blocks_per_cuda_block;
        const dim3 dims   = quantize ? dim3(32, CUDA_TURBO_WARPS) : dim3(CUDA_TURBO_THREADS);
        const auto kernel = quantize ? k_turbo_cpy_f32_q<block_t> : k_turbo_cpy_q_f32<block_t>;
        kernel<<<(n_blocks + n - 1) / n, dims, 0, ctx.stream()>>>(
            (const char *) src0->data, (char *) src1->data, n_blocks, turbo_block_shape(src0),
            turbo_block_strides(src0), turbo_block_shape(src1), turbo_block_strides(src1));
    });
    return true;
}

static void turbo_get_rows(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    const ggml_tensor * src  = dst->src[0];
    const ggml_tensor * src1 = dst->src[1];

    if (ggml_nelements(dst) == 0) {
        return;
    }

    turbo_with_block(src->type, [&](auto * block) {
        using block_t = std::remove_pointer_t<decltype(block)>;

        const int64_t n_parts = (src->ne[0] / 4 + CUDA_TURBO_THREADS - 1) / CUDA_TURBO_THREADS;
        const dim3    grid(src1->ne[0], std::min<int64_t>(n_parts, UINT16_MAX),
                           std::min<int64_t>(src1->ne[1] * src1->ne[2], UINT16_MAX));

        const auto kernel = dst->type == GGML_TYPE_F32 ? k_turbo_get_rows<block_t, float> :
                            dst->type == GGML_TYPE_F16 ? k_turbo_get_rows<block_t, half> :
                                                         k_turbo_get_rows<block_t, nv_bfloat16>;
        kernel<<<grid, CUDA_TURBO_THREADS, 0, ctx.stream()>>>(
            (const char *) src->data, (const char *) src1->data, (char *) dst->data, src->ne[0], src1->ne[1],
            src1->ne[2], turbo_strides(src), turbo_strides(src1), turbo_strides(dst));
    });
}

bool ggml_cuda_turbo_compute(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    if (!ggml_turbo_involved(dst)) {
        return false;
    }
    switch (dst->op) {
        case GGML_OP_SET_ROWS:
            turbo_set_rows(ctx, dst);
            break;
        case GGML_OP_GET_ROWS:
            turbo_get_rows(ctx, dst);
            break;
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            if (!turbo_cpy(ctx, dst->src[0], dst)) {
                return false;
            }
            break;
        default:
            return false;
    }
    CUDA_CHECK(cudaGetLastError());
    return true;
}

//
// conversion
//

template <typename block_t, typename dst_t>
static void turbo_convert_nc(const void * x,
                             dst_t *      y,
                             int64_t      ne00,
                             int64_t      ne01,
                             int64_t      ne02,
                             int64_t      ne03,
                             int64_t      s01,
                             int64_t      s02,
                             int64_t      s03,
                             cudaStream_t stream) {
    if (ne00 * ne01 * ne02 * ne03 == 0) {
        return;
    }

    const dim3 grid((ne00 / 4 + CUDA_TURBO_THREADS - 1) / CUDA_TURBO_THREADS, std::min<int64_t>(ne01, UINT16_MAX),
                    std::min<int64_t>(ne02 * ne03, UINT16_MAX));
    k_turbo_convert<block_t>
        <<<grid, CUDA_TURBO_THREADS, 0, stream>>>(x, y, ne00, ne01, ne02, ne03, turbo_index{ 1, s01, s02, s03 });
}

template <typename block_t, typename dst_t>
static void turbo_convert(const void * x, dst_t * y, int64_t k, cudaStream_t stream) {
    turbo_convert_nc<block_t>(x, y, k, 1, 1, 1, 0, 0, 0, stream);
}

// for turbo-convert.cuh; convert is turbo_convert or turbo_convert_nc
#define TURBO_CONVERSION(NAME, convert, dst_t)                           \
    to_##NAME##_t ggml_turbo_to_##NAME(ggml_type type);                  \
    to_##NAME##_t ggml_turbo_to_##NAME(ggml_type type) {                 \
        return type == GGML_TYPE_TURBO2 ? convert<block_turbo2, dst_t> : \
               type == GGML_TYPE_TURBO3 ? convert<block_turbo3, dst_t> : \
                                          convert<block_turbo4, dst_t>;  \
    }

TURBO_CONVERSION(fp32_cuda, turbo_convert, float)
TURBO_CONVERSION(fp16_cuda, turbo_convert, half)
TURBO_CONVERSION(bf16_cuda, turbo_convert, nv_bfloat16)
TURBO_CONVERSION(fp32_nc_cuda, turbo_convert_nc, float)
TURBO_CONVERSION(fp16_nc_cuda, turbo_convert_nc, half)
TURBO_CONVERSION(bf16_nc_cuda, turbo_convert_nc, nv_bfloat16)

//
// which operations there are
//

// whether rows are stored without gaps between their values, and whole blocks long
static bool turbo_has_plain_rows(const ggml_tensor * t) {
    return t->nb[0] == ggml_type_size(t->type) && t->ne[0] % QK_TURBO == 0;
}

static bool turbo_supports_cpy(const ggml_tensor * src, const ggml_tensor * dst) {
    if (src->type == dst->type) {
        return ggml_is_contiguous(src) && ggml_is_contiguous(dst);
    }
    return (src->type == GGML_TYPE_F32 || dst->type == GGML_TYPE_F32) && turbo_has_plain_rows(src) &&
           turbo_has_plain_rows(dst);
}

bool ggml_cuda_turbo_supports_op(int device, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        default:
            break;
    }

    const ggml_tensor * src0 = op->src[0];
    const ggml_tensor * src1 = op->src[1];

    switch (op->op) {
        case GGML_OP_SET_ROWS:
            return src0->type == GGML_TYPE_F32 && turbo_has_plain_rows(src0) && turbo_has_plain_rows(op) &&
                   (src1->type == GGML_TYPE_I64 || src1->type == GGML_TYPE_I32);
        case GGML_OP_GET_ROWS:
            return ggml_is_turbo(src0->type) && turbo_has_plain_rows(src0) && src1->type == GGML_TYPE_I32 &&
                   src1->ne[3] == 1 && op->nb[0] == ggml_type_size(op->type) &&
                   (op->type == GGML_TYPE_F32 || op->type == GGML_TYPE_F16 || op->type == GGML_TYPE_BF16);
        case GGML_OP_CPY:
            return turbo_supports_cpy(src0, src1);
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            return turbo_supports_cpy(src0, op);
        case GGML_OP_MUL_MAT:
            // converted to f16 or f32 for cuBLAS
            return ggml_is_turbo(src0->type) && turbo_has_plain_rows(src0) && src1->type == GGML_TYPE_F32 &&
                   src1->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32;
        case GGML_OP_FLASH_ATTN_EXT:
            return src0->type == GGML_TYPE_F32 && turbo_has_plain_rows(src1) && turbo_has_plain_rows(op->src[2]) &&
                   ggml_cuda_flash_attn_ext_supported(device, op);
        default:
            return false;
    }
}
