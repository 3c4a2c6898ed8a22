// Every device that has kernels for the turbo cache types must quantize to the reference's bytes and decode to its values.
//
// A driver whose division or square root is not IEEE's may choose another block that is as good. Such blocks are counted,
// and are a failure beyond MAX_EXCESS, or at all with --exact and on llvmpipe, which computes as IEEE says.

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "ggml.h"
#include "test-turbo-blocks.h"
#include "test-turbo-vectors.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

static constexpr int    N_BLOCKS   = 100000;
static constexpr int    ROW_BLOCKS = 3;
static constexpr double MAX_EXCESS = 0.02;  // of a block's squared error over the reference's, and of its energy

static int n_failed = 0;

static void check(bool ok, const std::string & what) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", what.c_str());
    n_failed += !ok;
}

struct codec {
    ggml_type        type;
    std::vector<int> levels[2];  // positive ones; narrow, wide
};

static const codec codecs[] = {
    { GGML_TYPE_TURBO2, { { 25, 85 }, { 38, 127 } }                                                },
    { GGML_TYPE_TURBO3, { { 10, 31, 55, 88 }, { 14, 43, 76, 121 } }                                },
    { GGML_TYPE_TURBO4, { { 5, 15, 25, 36, 48, 62, 79, 104 }, { 6, 18, 30, 43, 57, 73, 94, 124 } } },
};

using bytes = std::vector<uint8_t>;

template <typename T> static bytes as_bytes(const std::vector<T> & v) {
    bytes b(v.size() * sizeof(T));
    memcpy(b.data(), v.data(), b.size());
    return b;
}

static std::vector<float> as_floats(const bytes & b) {
    std::vector<float> v(b.size() / sizeof(float));
    memcpy(v.data(), b.data(), b.size());
    return v;
}

static bytes quantize(ggml_type type, const std::vector<float> & x) {
    bytes q(ggml_row_size(type, x.size()));
    ggml_quantize_chunk(type, x.data(), q.data(), 0, 1, x.size(), nullptr);
    return q;
}

static std::vector<float> dequantize(ggml_type type, const bytes & q) {
    std::vector<float> y(q.size() / ggml_type_size(type) * ggml_blck_size(type));
    ggml_get_type_traits(type)->to_float(q.data(), y.data(), y.size());
    return y;
}

// one operation on one device
struct device_graph {
    ggml_backend_t   backend;
    ggml_context_ptr ctx{ ggml_init({ 16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }) };

    std::vector<std::pair<ggml_tensor *, bytes>> inputs;

    explicit device_graph(ggml_backend_t backend) : backend(backend) {}

    ggml_tensor * input(ggml_type type, int64_t ne0, int64_t ne1, bytes data) {
        inputs.emplace_back(ggml_new_tensor_2d(ctx.get(), type, ne0, ne1), std::move(data));
        return inputs.back().first;
    }

    // what `result` holds afterwards; nothing if the device has no such operation
    bytes compute(ggml_tensor * output, const ggml_tensor * result) {
        if (!ggml_backend_supports_op(backend, output)) {
            return {};
        }
        ggml_cgraph * gf = ggml_new_graph(ctx.get());
        ggml_build_forward_expand(gf, output);
        const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), backend));
        GGML_ASSERT(buffer);
        for (const auto & [tensor, data] : inputs) {
            GGML_ASSERT(data.size() == ggml_nbytes(tensor));
            ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
        }
        GGML_ASSERT(ggml_backend_graph_compute(backend, gf) == GGML_STATUS_SUCCESS);

        bytes b(ggml_nbytes(result));
        ggml_backend_tensor_get(result, b.data(), 0, b.size());
        return b;
    }
};

static constexpr int64_t WIDTH = ROW_BLOCKS * 64;

// row i goes to row n - 1 - i, and back
template <typename T> static std::vector<T> reversed(int64_t n) {
    std::vector<T> idx(n);
    for (int64_t i = 0; i < n; i++) {
        idx[i] = (T) (n - 1 - i);
    }
    return idx;
}

static bytes reverse_rows(const bytes & b, int64_t n) {
    const size_t size = b.size() / n;
    bytes        r(b.size());
    for (int64_t i = 0; i < n && !b.empty(); i++) {
        memcpy(r.data() + i * size, b.data() + (n - 1 - i) * size, size);
    }
    return r;
}

static bytes device_set_rows(ggml_backend_t             backend,
                             ggml_type                  type,
                             ggml_type                  index,
                             ggml_type                  source,
                             const std::vector<float> & x) {
    const int64_t n = x.size() / WIDTH;

    bytes data = as_bytes(x);
    if (source == GGML_TYPE_F16) {
        data.resize(x.size() * sizeof(ggml_fp16_t));
        ggml_fp32_to_fp16_row(x.data(), (ggml_fp16_t *) data.data(), x.size());
    }

    device_graph  graph(backend);
    ggml_tensor * to   = graph.input(type, WIDTH, n, bytes(ggml_row_size(type, x.size())));
    ggml_tensor * from = graph.input(source, WIDTH, n, data);
    ggml_tensor * idx  = graph.input(
        index, n, 1, index == GGML_TYPE_I64 ? as_bytes(reversed<int64_t>(n)) : as_bytes(reversed<int32_t>(n)));
    return reverse_rows(graph.compute(ggml_set_rows(graph.ctx.get(), to, from, idx), to), n);
}

static bytes device_cpy(ggml_backend_t backend, ggml_type from, ggml_type to, int64_t n, const bytes & data) {
    device_graph  graph(backend);
    ggml_tensor * src = graph.input(from, WIDTH, n, data);
    ggml_tensor * dst = graph.input(to, WIDTH, n, bytes(n * ggml_row_size(to, WIDTH)));
    return graph.compute(ggml_cpy(graph.ctx.get(), src, dst), dst);
}

static bytes device_get_rows(ggml_backend_t backend, ggml_type type, int64_t n, const bytes & data) {
    device_graph  graph(backend);
    ggml_tensor * src = graph.input(type, WIDTH, n, data);
    ggml_tensor * idx = graph.input(GGML_TYPE_I32, n, 1, as_bytes(reversed<int32_t>(n)));
    ggml_tensor * out = ggml_get_rows(graph.ctx.get(), src, idx);
    return reverse_rows(graph.compute(out, out), n);
}

// By how much the squared error of a block is above the reference's, in parts of the block's energy; infinity if only one
// of the two is NaN, as blocks of values that are not finite must be.
static double excess(const float * x, const float * got, const float * ref) {
    double e_got = 0, e_ref = 0, energy = 0;
    for (int j = 0; j < 64; j++) {
        if (std::isnan(got[j]) != std::isnan(ref[j])) {
            return INFINITY;
        }
        e_got += std::pow((double) x[j] - got[j], 2);
        e_ref += std::pow((double) x[j] - ref[j], 2);
        energy += std::pow((double) x[j], 2);
    }
    return energy > 0 ? (e_got - e_ref) / energy : 0;
}

// x, and the blocks that it must become
struct sample {
    std::vector<float> x;
    bytes              blocks;
};

static void check_blocks(const std::string & what, ggml_type type, const sample & s, const bytes & got, bool exact) {
    if (got.empty()) {
        printf("unsupported: %s\n", what.c_str());
        return;
    }
    const size_t size = ggml_type_size(type);
    const size_t n    = s.blocks.size() / size;
    const auto   y    = dequantize(type, got);
    const auto   yref = dequantize(type, s.blocks);

    int    n_blocks = 0, n_bytes = 0;
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        int n_differ = 0;
        for (size_t j = i * size; j < (i + 1) * size; j++) {
            n_differ += got[j] != s.blocks[j];
        }
        if (n_differ > 0) {
            n_bytes += n_differ;
            n_blocks++;
            worst = std::max(worst, excess(&s.x[i * 64], &y[i * 64], &yref[i * 64]));
        }
    }
    const bool ok = exact ? n_blocks == 0 : worst <= MAX_EXCESS;
    check(ok, what + ": " + std::to_string(n_blocks) + " of " + std::to_string(n) + " blocks differ, " +
                  std::to_string(n_bytes) + " bytes; error above the reference's " + std::to_string(worst));
}

// Level times step is exact in fp32. The sign of zero is nobody's concern.
static void check_values(const std::string & what, const std::vector<float> & ref, const bytes & got) {
    if (got.empty()) {
        printf("unsupported: %s\n", what.c_str());
        return;
    }
    const auto y        = as_floats(got);
    size_t     n_differ = 0;
    for (size_t i = 0; i < ref.size(); i++) {
        n_differ += !(y[i] == ref[i] || (std::isnan(y[i]) && std::isnan(ref[i])));
    }
    check(n_differ == 0,
          what + ": " + std::to_string(n_differ) + " of " + std::to_string(ref.size()) + " values differ");
}

static std::vector<float> all_blocks(const codec & c) {
    std::vector<float> x = turbo_test_blocks(c.levels, N_BLOCKS);
    for (const auto & v : turbo_vectors) {
        std::vector<float> block(64);
        memcpy(block.data(), v.x, sizeof(v.x));
        x.insert(x.end(), block.begin(), block.end());
    }
    x.resize((x.size() + WIDTH - 1) / WIDTH * WIDTH, 1.0f);
    return x;
}

// every pattern of bits that a cache may come to hold: blocks of the quantizer, and random ones
static bytes blocks_to_decode(bytes q) {
    std::mt19937 gen(4);
    for (size_t i = q.size() / 2; i < q.size(); i++) {
        q[i] = (uint8_t) gen();
    }
    return q;
}

static std::vector<float> through_fp16(const std::vector<float> & x) {
    std::vector<ggml_fp16_t> h(x.size());
    std::vector<float>       y(x.size());
    ggml_fp32_to_fp16_row(x.data(), h.data(), x.size());
    ggml_fp16_to_fp32_row(h.data(), y.data(), x.size());
    return y;
}

static void test_device(ggml_backend_dev_t dev, bool exact) {
    const std::string description = ggml_backend_dev_description(dev);
    exact                         = exact || description.find("llvmpipe") != std::string::npos;
    printf("device %s: %s\n", ggml_backend_dev_name(dev), description.c_str());

    const ggml_backend_ptr owner(ggml_backend_dev_init(dev, nullptr));
    ggml_backend_t         backend = owner.get();
    for (const codec & c : codecs) {
        const std::string name = std::string(ggml_backend_dev_name(dev)) + " " + ggml_type_name(c.type) + " ";

        sample f32, f16;
        f32.x      = all_blocks(c);
        f32.blocks = quantize(c.type, f32.x);
        f16.x      = through_fp16(f32.x);
        f16.blocks = quantize(c.type, f16.x);

        const int64_t n = f32.x.size() / WIDTH;

        for (ggml_type index : { GGML_TYPE_I32, GGML_TYPE_I64 }) {
            const std::string op = name + "SET_ROWS " + ggml_type_name(index) + " of ";
            check_blocks(op + "f32", c.type, f32, device_set_rows(backend, c.type, index, GGML_TYPE_F32, f32.x), exact);
            check_blocks(op + "f16", c.type, f16, device_set_rows(backend, c.type, index, GGML_TYPE_F16, f16.x), exact);
        }
        check_blocks(name + "CPY of f32", c.type, f32, device_cpy(backend, GGML_TYPE_F32, c.type, n, as_bytes(f32.x)),
                     exact);

        const bytes q   = blocks_to_decode(f32.blocks);
        const auto  ref = dequantize(c.type, q);
        check_values(name + "GET_ROWS", ref, device_get_rows(backend, c.type, n, q));
        check_values(name + "CPY to f32", ref, device_cpy(backend, c.type, GGML_TYPE_F32, n, q));
    }
}

int main(int argc, char ** argv) {
    const bool exact = argc == 2 && strcmp(argv[1], "--exact") == 0;
    ggml_backend_load_all();

    int n_devices = 0;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev  = ggml_backend_dev_get(i);
        const auto         kind = ggml_backend_dev_type(dev);
        if (kind == GGML_BACKEND_DEVICE_TYPE_GPU || kind == GGML_BACKEND_DEVICE_TYPE_IGPU) {
            test_device(dev, exact);
            n_devices++;
        }
    }
    if (n_devices == 0) {
        printf("no device\n");
        return 0;
    }
    printf("%s\n", n_failed == 0 ? "all ok" : (std::to_string(n_failed) + " failed").c_str());
    return n_failed == 0 ? 0 : 1;
}
