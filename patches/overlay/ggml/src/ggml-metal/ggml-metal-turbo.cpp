#include "ggml-metal-turbo.h"

#include "ggml-impl.h"
#include "ggml-metal-common.h"
#include "ggml-metal-impl.h"
#include "ggml-metal-ops.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>

bool ggml_metal_turbo_is_attention(const ggml_tensor * op) {
    return op->op == GGML_OP_FLASH_ATTN_EXT && (ggml_is_turbo(op->src[1]->type) || ggml_is_turbo(op->src[2]->type));
}

//
// what is supported: whatever has a kernel in kernels/, and no more
//

// elements of a row lie beside each other
static bool turbo_has_rows(const ggml_tensor * t) {
    return t->nb[0] == ggml_type_size(t->type);
}

// rows begin where a vector of 4 floats may
static bool turbo_is_aligned(const ggml_tensor * t) {
    return t->nb[1] % 16 == 0 && t->nb[2] % 16 == 0 && t->nb[3] % 16 == 0;
}

static bool turbo_supports_set_rows(const ggml_tensor * op) {
    return ggml_is_turbo(op->type) && op->src[0]->type == GGML_TYPE_F32 && turbo_has_rows(op->src[0]) &&
           (op->src[1]->type == GGML_TYPE_I64 || op->src[1]->type == GGML_TYPE_I32);
}

// dst gets the values in order, whatever its shape
static bool turbo_supports_cpy(const ggml_tensor * src, const ggml_tensor * dst) {
    if (!turbo_has_rows(src) || !turbo_has_rows(dst)) {
        return false;
    }
    if (ggml_is_turbo(dst->type)) {
        // a block of dst is not cut by the end of a row of src
        return src->type == GGML_TYPE_F32 && src->ne[0] % ggml_blck_size(dst->type) == 0;
    }
    // a row of src is written in one piece, 16 values at a time
    const bool pieces = ggml_is_contiguous(dst) || ggml_are_same_shape(src, dst);
    return (dst->type == GGML_TYPE_F32 || dst->type == GGML_TYPE_F16) && pieces && turbo_is_aligned(dst);
}

static bool turbo_supports_get_rows(const ggml_tensor * op) {
    return ggml_is_turbo(op->src[0]->type) && turbo_has_rows(op->src[0]) && op->src[1]->type == GGML_TYPE_I32 &&
           op->type == GGML_TYPE_F32 && turbo_has_rows(op);
}

static bool turbo_supports_mul_mat(const ggml_metal_device_props * props, const ggml_tensor * op) {
    const ggml_tensor * a = op->src[0];
    const ggml_tensor * b = op->src[1];

    const bool mm = ggml_metal_op_mul_mat_use_mm(op, props->has_simdgroup_mm);

    return props->has_simdgroup_reduction && ggml_is_turbo(a->type) && turbo_has_rows(a) && turbo_has_rows(b) &&
           !ggml_is_transposed(a) && !ggml_is_transposed(b) && turbo_is_aligned(b) && b->ne[2] <= INT16_MAX &&
           b->ne[3] <= INT16_MAX && (b->type == GGML_TYPE_F32 || (b->type == GGML_TYPE_F16 && mm));
}

static bool turbo_supports_attention(const ggml_metal_device_props * props, const ggml_tensor * op) {
    // those of fa_vec_turbo.metal; fa_f16.metal has them, too
    static const int64_t head_sizes[][2] = {
        { 64,  64  },
        { 128, 128 },
        { 192, 192 },
        { 192, 128 },
        { 256, 256 },
        { 320, 256 },
        { 512, 512 },
        { 576, 512 },
    };

    const ggml_tensor * q    = op->src[0];
    const ggml_tensor * k    = op->src[1];
    const ggml_tensor * v    = op->src[2];
    const ggml_tensor * mask = op->src[3];

    for (const ggml_tensor * t : { k, v }) {
        switch (t->type) {
            case GGML_TYPE_F16:
            case GGML_TYPE_Q4_0:
            case GGML_TYPE_Q4_1:
            case GGML_TYPE_Q5_0:
            case GGML_TYPE_Q5_1:
            case GGML_TYPE_Q8_0:
            case GGML_TYPE_TURBO2:
            case GGML_TYPE_TURBO3:
            case GGML_TYPE_TURBO4:
                break;
            default:
                return false;
        }
        if (!turbo_has_rows(t)) {
            return false;
        }
    }

    const bool sized = std::any_of(std::begin(head_sizes), std::end(head_sizes),
                                   [&](const int64_t * size) { return k->ne[0] == size[0] && v->ne[0] == size[1]; });

    return props->has_simdgroup_mm && props->has_simdgroup_reduction && sized && q->type == GGML_TYPE_F32 &&
           turbo_has_rows(q) && q->ne[1] < 65536 && k->ne[1] == v->ne[1] && k->ne[2] == v->ne[2] &&
           k->ne[3] == v->ne[3] && (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[1] >= q->ne[1]));
}

bool ggml_metal_turbo_supports_op(const ggml_metal_device_props * props, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_PERMUTE:
            return true;
        case GGML_OP_SET_ROWS:
            return turbo_supports_set_rows(op);
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            return turbo_supports_cpy(op->src[0], op);
        case GGML_OP_GET_ROWS:
            return turbo_supports_get_rows(op);
        case GGML_OP_MUL_MAT:
            return turbo_supports_mul_mat(props, op);
        case GGML_OP_FLASH_ATTN_EXT:
            return turbo_supports_attention(props, op);
        default:
            return false;
    }
}

//
// quantizing
//

void ggml_metal_turbo_quantize(ggml_metal_library_t lib,
                               ggml_metal_encoder_t enc,
                               const ggml_tensor *  op,
                               ggml_metal_buffer_id (*buffer)(const ggml_tensor * t)) {
    const ggml_tensor * x   = op->src[0];
    const int64_t       nk0 = x->ne[0] / ggml_blck_size(op->type);

    if (op->op == GGML_OP_SET_ROWS) {
        const ggml_tensor * rows = op->src[1];

        ggml_metal_kargs_set_rows args = {
            /*.nk0  =*/(int32_t) nk0,
            /*.ne01 =*/(int32_t) x->ne[1],
            /*.nb01 =*/x->nb[1],
            /*.nb02 =*/x->nb[2],
            /*.nb03 =*/x->nb[3],
            /*.ne11 =*/(int32_t) rows->ne[1],
            /*.ne12 =*/(int32_t) rows->ne[2],
            /*.nb10 =*/rows->nb[0],
            /*.nb11 =*/rows->nb[1],
            /*.nb12 =*/rows->nb[2],
            /*.nb1  =*/op->nb[1],
            /*.nb2  =*/op->nb[2],
            /*.nb3  =*/op->nb[3],
        };

        ggml_metal_encoder_set_pipeline(enc, ggml_metal_library_get_pipeline_set_rows(lib, op));
        ggml_metal_encoder_set_bytes(enc, &args, sizeof(args), 0);
        ggml_metal_encoder_set_buffer(enc, buffer(x), 1);
        ggml_metal_encoder_set_buffer(enc, buffer(rows), 2);
        ggml_metal_encoder_set_buffer(enc, buffer(op), 3);
    } else {
        ggml_metal_kargs_cpy args = {
            /*.nk0  =*/nk0,
            /*.ne00 =*/x->ne[0],
            /*.ne01 =*/x->ne[1],
            /*.ne02 =*/x->ne[2],
            /*.ne03 =*/x->ne[3],
            /*.nb00 =*/x->nb[0],
            /*.nb01 =*/x->nb[1],
            /*.nb02 =*/x->nb[2],
            /*.nb03 =*/x->nb[3],
            /*.ne0  =*/op->ne[0],
            /*.ne1  =*/op->ne[1],
            /*.ne2  =*/op->ne[2],
            /*.ne3  =*/op->ne[3],
            /*.nb0  =*/op->nb[0],
            /*.nb1  =*/op->nb[1],
            /*.nb2  =*/op->nb[2],
            /*.nb3  =*/op->nb[3],
        };

        ggml_metal_encoder_set_pipeline(enc, ggml_metal_library_get_pipeline_cpy(lib, x->type, op->type));
        ggml_metal_encoder_set_bytes(enc, &args, sizeof(args), 0);
        ggml_metal_encoder_set_buffer(enc, buffer(x), 1);
        ggml_metal_encoder_set_buffer(enc, buffer(op), 2);
    }

    const int64_t n_groups = (nk0 * x->ne[1] + N_SG_TURBO_QUANTIZE - 1) / N_SG_TURBO_QUANTIZE;
    ggml_metal_encoder_dispatch_threadgroups(enc, n_groups, x->ne[2], x->ne[3], 32, N_SG_TURBO_QUANTIZE, 1);
}

//
// attention
//

void ggml_metal_turbo_as_f16(ggml_metal_library_t     lib,
                             ggml_metal_encoder_t     enc,
                             const ggml_tensor *      kv,
                             ggml_metal_buffer_id     dst,
                             ggml_metal_buffer_id *   bid,
                             ggml_metal_turbo_strides strides) {
    if (!ggml_is_quantized(kv->type)) {
        return;
    }

    char name[256];
    snprintf(name, sizeof(name), "kernel_flash_attn_ext_kv_%s_f16", ggml_type_name(kv->type));

    ggml_metal_pipeline_with_params pipeline = ggml_metal_library_get_pipeline(lib, name);
    if (!pipeline.pipeline) {
        pipeline = ggml_metal_library_compile_pipeline(lib, name, name, nullptr);
    }

    ggml_metal_kargs_flash_attn_ext_kv_f16 args = {
        /*.ne0     =*/(int32_t) kv->ne[0],
        /*.ne1     =*/(int32_t) kv->ne[1],
        /*.ne2     =*/(int32_t) kv->ne[2],
        /*.ne3     =*/(int32_t) kv->ne[3],
        /*.nb0     =*/kv->nb[0],
        /*.nb1     =*/kv->nb[1],
        /*.nb2     =*/kv->nb[2],
        /*.nb3     =*/kv->nb[3],
        /*.nblocks =*/(int32_t) (ggml_nelements(kv) / ggml_blck_size(kv->type)),
    };
    const int nth = std::min(ggml_metal_pipeline_max_theads_per_threadgroup(pipeline), 256);

    ggml_metal_encoder_set_pipeline(enc, pipeline);
    ggml_metal_encoder_set_bytes(enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(enc, *bid, 1);
    ggml_metal_encoder_set_buffer(enc, dst, 2);
    ggml_metal_encoder_dispatch_threadgroups(enc, (args.nblocks + nth - 1) / nth, 1, 1, nth, 1, 1);

    *bid           = dst;
    *strides.nb[0] = sizeof(ggml_fp16_t);
    for (int i = 1; i < 4; i++) {
        *strides.nb[i] = *strides.nb[i - 1] * kv->ne[i - 1];
    }
}

void ggml_metal_turbo_attention_name(const ggml_tensor * op, char * base, char * name, size_t size) {
    if (ggml_metal_turbo_is_attention(op)) {
        // "turbo" for the type of K, which is in name as well; what follows stays, so that a variant that is not there is missed
        const std::string heads = strstr(base, "_dk");
        snprintf(base, size, "kernel_flash_attn_ext_vec_turbo%s", heads.c_str());

        const size_t used = strlen(name);
        snprintf(name + used, size - used, "_v=%s", ggml_type_name(op->src[2]->type));
    }
}

void ggml_metal_turbo_attention_constants(const ggml_tensor * op, ggml_metal_cv_t cv) {
    if (ggml_metal_turbo_is_attention(op)) {
        ggml_metal_cv_set_int32(cv, op->src[1]->type, FC_FLASH_ATTN_EXT_VEC + 30);
        ggml_metal_cv_set_int32(cv, op->src[2]->type, FC_FLASH_ATTN_EXT_VEC + 31);
    }
}
