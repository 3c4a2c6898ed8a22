// Quantizes and decodes on the Metal device and compares bytes with the reference: the pinned vectors, and the blocks that
// every backend must quantize alike.

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-turbo-impl.h"
#include "ggml.h"
#include "test-turbo-blocks.h"
#include "test-turbo-vectors.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct turbo_type {
    ggml_type        type;
    std::vector<int> levels[2];
    size_t           offset;  // in turbo_vectors
};

// x as rows of `type`, then those rows as floats
struct result {
    std::vector<uint8_t> set, copied;
    std::vector<float>   gathered, copied_back;
};

static std::vector<float> floats(const ggml_tensor * t) {
    std::vector<float> data(ggml_nelements(t));
    ggml_backend_tensor_get(t, data.data(), 0, ggml_nbytes(t));
    return data;
}

static std::vector<uint8_t> bytes(const ggml_tensor * t) {
    std::vector<uint8_t> data(ggml_nbytes(t));
    ggml_backend_tensor_get(t, data.data(), 0, data.size());
    return data;
}

template <typename index> static result run(ggml_backend_t backend, ggml_type type, const std::vector<float> & x) {
    const int64_t n = 128;  // two blocks in a row
    const int64_t m = x.size() / n;

    ggml_context_ptr ctx(ggml_init({ 16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }));

    ggml_tensor * a    = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, m);
    ggml_tensor * rows = ggml_new_tensor_2d(ctx.get(), type, n, m);
    ggml_tensor * i    = ggml_new_tensor_1d(ctx.get(), sizeof(index) == 8 ? GGML_TYPE_I64 : GGML_TYPE_I32, m);
    ggml_tensor * j    = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, m);
    ggml_tensor * set  = ggml_set_rows(ctx.get(), rows, a, i);
    ggml_tensor * cpy  = ggml_cpy(ctx.get(), a, ggml_new_tensor_2d(ctx.get(), type, n, m));
    ggml_tensor * get  = ggml_get_rows(ctx.get(), set, j);
    ggml_tensor * back = ggml_cpy(ctx.get(), cpy, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, m));

    ggml_cgraph * graph = ggml_new_graph(ctx.get());
    for (ggml_tensor * t : { set, cpy, get, back }) {
        if (!ggml_backend_supports_op(backend, t)) {
            fprintf(stderr, "the device refuses %s\n", ggml_op_desc(t));
            exit(1);
        }
        ggml_build_forward_expand(graph, t);
    }
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), backend));

    // rows go to other places, and come back in their order
    std::vector<index>   to(m);
    std::vector<int32_t> from(m);
    for (int64_t r = 0; r < m; r++) {
        to[r]   = (index) (m - 1 - r);
        from[r] = (int32_t) (m - 1 - r);
    }
    ggml_backend_tensor_set(a, x.data(), 0, ggml_nbytes(a));
    ggml_backend_tensor_set(i, to.data(), 0, ggml_nbytes(i));
    ggml_backend_tensor_set(j, from.data(), 0, ggml_nbytes(j));
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
        exit(1);
    }

    std::vector<uint8_t> reversed = bytes(rows), ordered;
    const size_t         size     = ggml_row_size(type, n);
    for (int64_t r = m - 1; r >= 0; r--) {
        ordered.insert(ordered.end(), &reversed[r * size], &reversed[r * size] + size);
    }
    return { ordered, bytes(cpy), floats(get), floats(back) };
}

template <typename T> static int differing(const std::vector<T> & a, const T * b, size_t n, size_t size) {
    int count = a.size() != n;
    for (size_t i = 0; i + size <= n; i += size) {
        count += memcmp(&a[i], &b[i], size * sizeof(T)) != 0;
    }
    return count;
}

template <typename index>
static int check(ggml_backend_t               backend,
                 const turbo_type &           t,
                 const std::vector<float> &   x,
                 const std::vector<uint8_t> & want,
                 const char *                 what) {
    const size_t       size = ggml_type_size(t.type);
    std::vector<float> decoded(x.size());
    ggml_get_type_traits(t.type)->to_float(want.data(), decoded.data(), x.size());

    const result got   = run<index>(backend, t.type, x);
    const int    bad[] = {
        differing(got.set, want.data(), want.size(), size),
        differing(got.copied, want.data(), want.size(), size),
        differing(got.gathered, decoded.data(), decoded.size(), 64),
        differing(got.copied_back, decoded.data(), decoded.size(), 64),
    };
    printf("%s, %zu %s: blocks that differ: SET_ROWS %d, CPY %d, GET_ROWS %d, CPY back %d\n", ggml_type_name(t.type),
           x.size() / 64, what, bad[0], bad[1], bad[2], bad[3]);
    return bad[0] + bad[1] + bad[2] + bad[3];
}

// the number of blocks is the argument
int main(int argc, char ** argv) {
    const int n_blocks = argc > 1 ? atoi(argv[1]) : 100000;

    typedef std::remove_reference_t<decltype(turbo_vectors[0])> vector;

    const turbo_type types[] = {
        { GGML_TYPE_TURBO2, { { 25, 85 }, { 38, 127 } },                             offsetof(vector, turbo2) },
        { GGML_TYPE_TURBO3, { { 10, 31, 55, 88 }, { 14, 43, 76, 121 } },             offsetof(vector, turbo3) },
        { GGML_TYPE_TURBO4,
         { { 5, 15, 25, 36, 48, 62, 79, 104 }, { 6, 18, 30, 43, 57, 73, 94, 124 } },
         offsetof(vector,                                                                             turbo4) },
    };

    ggml_backend_ptr backend(ggml_backend_init_by_name("MTL0", nullptr));
    int              failed = 0;
    for (const turbo_type & t : types) {
        const size_t         size = ggml_type_size(t.type);
        std::vector<float>   x;
        std::vector<uint8_t> want;
        for (const auto & v : turbo_vectors) {
            const float * f = (const float *) v.x;
            const auto *  b = (const uint8_t *) &v + t.offset;
            x.insert(x.end(), f, f + 64);
            want.insert(want.end(), b, b + size);
        }
        if (x.size() % 128 != 0) {
            x.insert(x.end(), x.end() - 64, x.end());
            want.insert(want.end(), want.end() - size, want.end());
        }
        failed += check<int32_t>(backend.get(), t, x, want, "pinned vectors");
        failed += check<int64_t>(backend.get(), t, x, want, "pinned vectors");

        x = turbo_test_blocks(t.levels, n_blocks);
        want.resize(ggml_row_size(t.type, x.size()));
        ggml_get_type_traits(t.type)->from_float_ref(x.data(), want.data(), x.size());
        failed += check<int64_t>(backend.get(), t, x, want, "blocks");
    }
    printf("%s\n", failed ? "FAILED" : "all ok");
    return failed != 0;
}
