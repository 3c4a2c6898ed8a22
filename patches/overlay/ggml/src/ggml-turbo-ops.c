#include "ggml-impl.h"
#include "ggml-turbo-impl.h"
#include "ggml-turbo.h"

// What builds graphs, apart from the codec, so that the codec links without them

struct ggml_tensor * ggml_turbo_set_rows(struct ggml_context * ctx,
                                         struct ggml_tensor *  a,
                                         struct ggml_tensor *  b,
                                         struct ggml_tensor *  c,
                                         struct ggml_tensor *  factors) {
    GGML_ASSERT(ggml_is_turbo(a->type) && b->type == GGML_TYPE_F32 && a->ne[2] == 1 && a->ne[3] == 1);
    GGML_ASSERT(factors->type == GGML_TYPE_I8 && ggml_is_contiguous(factors));
    GGML_ASSERT(factors->ne[0] == sizeof(ggml_turbo_factor) && ggml_nrows(factors) * QK_TURBO == a->ne[0]);

    struct ggml_tensor * res = ggml_set_rows(ctx, a, b, c);
    res->src[3]              = factors;

    return res;
}
