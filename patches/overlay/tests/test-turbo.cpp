// Pins the turbo codec: tables, bit layout, bytes of given blocks, special values, error on Gaussian data, and the rotation.
//
// test-turbo --vectors prints test-turbo-vectors.h as the reference makes it.

#include "../ggml/src/ggml-backend-impl.h"
#include "../ggml/src/ggml-turbo-impl.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "ggml.h"
#include "test-row-chains.h"
#include "test-turbo-attention.h"
#include "test-turbo-blocks.h"
#include "test-turbo-vectors.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

static int n_failed = 0;

static void check(bool ok, const std::string & what) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", what.c_str());
    n_failed += !ok;
}

struct codec {
    ggml_type          type;
    int                bits;
    size_t             bytes;
    double             sigma[2];   // integer levels per standard deviation; narrow, wide
    std::vector<float> lloyd_max;  // positive levels of the optimal quantizer of N(0,1)
    std::vector<int>   levels[2];  // their integers
    double             max_nmse;   // on Gaussian blocks
};

static const codec codecs[] = {
    { GGML_TYPE_TURBO2, 2, 18, { 56.056, 84.08 }, { .452780f, 1.510418f },                   { { 25, 85 }, { 38, 127 } }, .1040 },
    { GGML_TYPE_TURBO3,
     3,                    26,
     { 40.9097, 56.25 },
     { .245094f, .756005f, 1.343909f, 2.151946f },
     { { 10, 31, 55, 88 }, { 14, 43, 76, 121 } },
     .0250                                                                                                                      },
    { GGML_TYPE_TURBO4,
     4,                    34,
     { 38.1556, 45.31 },
     { .128395f, .388048f, .656759f, .942340f, 1.256231f, 1.618046f, 2.069017f, 2.732590f },
     { { 5, 15, 25, 36, 48, 62, 79, 104 }, { 6, 18, 30, 43, 57, 73, 94, 124 } },
     .0060                                                                                                                      },
};

static std::vector<uint8_t> quantize(ggml_type type, const std::vector<float> & x) {
    std::vector<uint8_t> q(ggml_row_size(type, x.size()));
    ggml_quantize_chunk(type, x.data(), q.data(), 0, 1, x.size(), nullptr);
    return q;
}

static std::vector<float> dequantize(ggml_type type, const std::vector<uint8_t> & q) {
    std::vector<float> y(q.size() / ggml_type_size(type) * ggml_blck_size(type));
    ggml_get_type_traits(type)->to_float(q.data(), y.data(), y.size());
    return y;
}

// A computation on the CPU backend, which may be a library that is loaded when the program runs.
struct cpu_graph {
    ggml_context_ptr ctx{ ggml_init({ 8 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true }) };

    std::vector<std::pair<ggml_tensor *, const void *>> inputs;

    ggml_tensor * input(ggml_type type, int64_t n, const void * data) {
        inputs.emplace_back(ggml_new_tensor_1d(ctx.get(), type, n), data);
        return inputs.back().first;
    }

    std::vector<uint8_t> compute(ggml_tensor * output) {
        static const ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
        GGML_ASSERT(cpu);

        ggml_cgraph * gf = ggml_new_graph(ctx.get());
        ggml_build_forward_expand(gf, output);
        const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get()));
        for (const auto & [tensor, data] : inputs) {
            ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
        }
        GGML_ASSERT(ggml_backend_graph_compute(cpu.get(), gf) == GGML_STATUS_SUCCESS);

        std::vector<uint8_t> result(ggml_nbytes(output));
        ggml_backend_tensor_get(output, result.data(), 0, result.size());
        return result;
    }
};

static std::vector<uint8_t> cpu_cast(ggml_type from, const void * data, int64_t n, ggml_type to) {
    cpu_graph graph;
    return graph.compute(ggml_cast(graph.ctx.get(), graph.input(from, n, data), to));
}

static std::vector<uint8_t> cpu_quantize(ggml_type type, const std::vector<float> & x) {
    return cpu_cast(GGML_TYPE_F32, x.data(), x.size(), type);
}

// a block with step 1 whose value j has code j % 2^bits, built from the description of the layout
static std::vector<uint8_t> counting_block(const codec & c, int wide) {
    std::vector<uint8_t> b(c.bytes, 0);
    b[0] = wide;
    b[1] = 0xa8;  // the step is 64.0 in fp16, 0x5400, one bit to the left
    for (int j = 0; j < 64; j++) {
        const int code = j % (1 << c.bits);
        if (c.bits == 4) {
            b[2 + j % 32] |= code << 4 * (j / 32);
        } else {
            b[2 + j % 16] |= (code & 3) << 2 * (j / 16);
        }
        if (c.bits == 3) {
            b[18 + j / 8] |= (code >> 2) << (j % 8);
        }
    }
    return b;
}

static void test_tables(const codec & c) {
    const std::string name = ggml_type_name(c.type);

    check(ggml_type_size(c.type) == c.bytes && ggml_blck_size(c.type) == 64,
          name + " takes " + std::to_string(c.bytes) + " bytes for 64 values");

    const int n    = c.lloyd_max.size();
    bool      same = true;
    bool      near = true;
    for (int wide = 0; wide < 16; wide++) {
        const auto y = dequantize(c.type, counting_block(c, wide));
        for (int j = 0; j < 64; j++) {
            const int code  = j % (2 * n);
            const int w     = (wide >> j / 16) & 1;
            const int m     = code < n ? n - 1 - code : code - n;
            const int level = c.levels[w][m];
            same            = same && y[j] == (float) (code < n ? -level : level);
            near            = near && std::fabs(level / c.sigma[w] - c.lloyd_max[m]) < 0.015;
        }
    }
    check(same, name + " decodes its bit layout to its integer levels");
    check(near, name + " levels are the Lloyd-Max levels of N(0,1)");
}

static void test_special(const codec & c) {
    const std::string name = ggml_type_name(c.type);

    const auto zeros = quantize(c.type, std::vector<float>(64, 0.0f));
    check(zeros == std::vector<uint8_t>(c.bytes, 0), name + " of zeros is all zero bytes");
    check(dequantize(c.type, zeros) == std::vector<float>(64, 0.0f), name + " of zero bytes is zeros");

    for (float bad : { NAN, INFINITY, -INFINITY }) {
        std::vector<float> x(64, 1.0f);
        x[17]              = bad;
        const auto y       = dequantize(c.type, quantize(c.type, x));
        bool       all_nan = true;
        for (float v : y) {
            all_nan = all_nan && std::isnan(v);
        }
        check(all_nan, name + " keeps a non-finite value visible");
    }

    for (float scale : { 1e-45f, 1e-38f, 1e-20f, 1.0f, 1e4f, 1e6f, 1e20f, std::numeric_limits<float>::max() }) {
        std::vector<float> x(64);
        for (int j = 0; j < 64; j++) {
            x[j] = scale * (j % 2 ? 1.0f : -0.5f);
        }
        bool finite = true;
        for (float v : dequantize(c.type, quantize(c.type, x))) {
            finite = finite && std::isfinite(v);
        }
        check(finite, name + " is finite at scale " + std::to_string(std::log10(scale)));
    }

    std::vector<float> spike(64, 0.0f);
    spike[5]     = -100.0f;
    const auto y = dequantize(c.type, quantize(c.type, spike));
    check(y[5] < 0 && std::fabs(y[5]) >= *std::max_element(y.begin(), y.end()),
          name + " keeps one huge value the largest");
}

// every scale field: a block is valid if and only if all of its values are finite
static void test_validation(const codec & c) {
    const std::string name = ggml_type_name(c.type);

    int n_wrong = 0;
    for (int d = 0; d < 65536; d++) {
        auto block = counting_block(c, 0);
        block[0]   = (uint8_t) d;
        block[1]   = (uint8_t) (d >> 8);

        bool finite = true;
        for (float v : dequantize(c.type, block)) {
            finite = finite && std::isfinite(v);
        }
        n_wrong += ggml_validate_row_data(c.type, block.data(), block.size()) != finite;
    }
    check(n_wrong == 0, name + " is validated as it is decoded, " + std::to_string(n_wrong) + " scales are not");

    const std::vector<uint8_t> zeros(2 * c.bytes, 0);
    check(!ggml_validate_row_data(c.type, zeros.data(), c.bytes + 1), name + " of a part of a block is not valid");

    auto second = zeros;
    std::fill(second.begin() + c.bytes, second.begin() + c.bytes + 2, 0xff);
    check(!ggml_validate_row_data(c.type, second.data(), second.size()), name + " is validated to the last block");
}

// ids between upstream's types and the turbo types, and those of types that upstream removed
static void test_no_types() {
    const std::vector<uint8_t> zeros(64, 0);

    bool refused = true;
    for (int id = 0; id < GGML_TYPE_COUNT; id++) {
        if (ggml_type_size((ggml_type) id) == 0) {
            refused = refused && !ggml_validate_row_data((ggml_type) id, zeros.data(), zeros.size());
        }
    }
    check(refused, "data of an id without a type is not valid");
}

// a device whose backend has no turbo kernels, but says yes to everything
static void test_other_backends() {
    static ggml_backend_reg reg = *ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    static const char *     name;

    reg.iface.get_name = [](ggml_backend_reg_t) {
        return name;
    };
    ggml_backend_device dev = *ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    dev.reg                 = &reg;
    dev.iface.supports_op   = [](ggml_backend_dev_t, const ggml_tensor *) {
        return true;
    };

    ggml_context_ptr ctx{ ggml_init({ 512 * ggml_tensor_overhead(), nullptr, true }) };

    const auto rows_of = [&](ggml_type type) {
        ggml_tensor * cache = ggml_new_tensor_2d(ctx.get(), type, 64, 8);
        ggml_tensor * rows  = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, 64, 1);
        return ggml_set_rows(ctx.get(), cache, rows, ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I64, 1));
    };
    const auto copy_of = [&](ggml_type type) {
        return ggml_cast(ctx.get(), ggml_new_tensor_2d(ctx.get(), type, 64, 8), GGML_TYPE_F32);
    };

    for (const char * other : { "SYCL", "CANN", "OpenCL", "ROCm", "MUSA", "HTP", "BLAS", "Upstream's next" }) {
        name         = other;
        bool refused = true;
        for (const codec & c : codecs) {
            refused = refused && !ggml_backend_dev_supports_op(&dev, rows_of(c.type)) &&
                      !ggml_backend_dev_supports_op(&dev, copy_of(c.type));
        }
        check(refused && ggml_backend_dev_supports_op(&dev, rows_of(GGML_TYPE_Q8_0)),
              std::string(other) + " is asked for other types only");
    }
    for (const char * ours : { "CPU", "CUDA", "MTL", "RPC", "Vulkan" }) {
        name         = ours;
        bool allowed = true;
        for (const codec & c : codecs) {
            allowed = allowed && ggml_backend_dev_supports_op(&dev, rows_of(c.type));
        }
        check(allowed, std::string(ours) + " answers for itself");
    }

    const auto for_scores = [&] {
        ggml_tensor * rows = rows_of(GGML_TYPE_TURBO4);
        return ggml_turbo_set_rows(ctx.get(), rows->src[2], rows->src[0], rows->src[1],
                                   ggml_new_tensor_2d(ctx.get(), GGML_TYPE_I8, sizeof(ggml_turbo_factor), 1));
    };
    check(ggml_backend_dev_supports_op(&dev, for_scores()), "a CPU rounds for scores");
    dev.iface.get_type = [](ggml_backend_dev_t) {
        return GGML_BACKEND_DEVICE_TYPE_GPU;
    };
    check(!ggml_backend_dev_supports_op(&dev, for_scores()) &&
              ggml_backend_dev_supports_op(&dev, rows_of(GGML_TYPE_TURBO4)),
          "another device does not");

    dev.reg = nullptr;
    check(!ggml_backend_dev_supports_op(&dev, rows_of(GGML_TYPE_TURBO4)), "a device of no backend is not asked");
    dev.iface.get_type = [](ggml_backend_dev_t) {
        return GGML_BACKEND_DEVICE_TYPE_META;
    };
    check(ggml_backend_dev_supports_op(&dev, rows_of(GGML_TYPE_TURBO4)),
          "one that stands for several asks each of them");
}

static void test_gaussian(const codec & c) {
    std::mt19937                    gen(1);
    std::normal_distribution<float> normal;
    std::vector<float>              x(64 * 4096);
    for (float & v : x) {
        v = normal(gen);
    }

    const auto y   = dequantize(c.type, quantize(c.type, x));
    double     err = 0, ref = 0, worst_norm = 0;
    for (size_t i = 0; i < x.size(); i += 64) {
        double nx = 0, ny = 0;
        for (size_t j = i; j < i + 64; j++) {
            err += (x[j] - y[j]) * (x[j] - y[j]);
            ref += x[j] * x[j];
            nx += x[j] * x[j];
            ny += y[j] * y[j];
        }
        worst_norm = std::max(worst_norm, std::fabs(std::sqrt(ny / nx) - 1));
    }
    check(err / ref < c.max_nmse, std::string(ggml_type_name(c.type)) + " NMSE on Gaussian blocks " +
                                      std::to_string(err / ref) + " < " + std::to_string(c.max_nmse));
    const double max_norm = c.type == GGML_TYPE_TURBO3 ? .01 : c.type == GGML_TYPE_TURBO4 ? .015 : .15;
    check(worst_norm < max_norm, std::string(ggml_type_name(c.type)) + " keeps the norm of a block within " +
                                     std::to_string(max_norm) + ": " + std::to_string(worst_norm));
}

// The CPU quantizer must give the reference's bytes.
static void test_bits(const codec & c, int n_blocks) {
    const auto all = turbo_test_blocks(c.levels, n_blocks);

    const auto ref      = quantize(c.type, all);
    const auto got      = cpu_quantize(c.type, all);
    int        n_differ = 0;
    for (size_t i = 0; i < ref.size(); i += c.bytes) {
        n_differ += memcmp(got.data() + i, ref.data() + i, c.bytes) != 0;
    }
    check(n_differ == 0, std::string(ggml_type_name(c.type)) + " CPU quantizer gives the reference's bytes for " +
                             std::to_string(n_blocks) + " blocks: " + std::to_string(n_differ) + " differ");
}

//
// rounding for scores
//

// second moments of queries that have little in common, much, and nothing to say
static std::vector<double> query_moment(int kind, std::mt19937 & gen) {
    std::normal_distribution<double> normal;
    std::vector<double>              a(64 * 64, 0.0);
    for (int q = 0; q < 40 && kind > 0; q++) {
        double x[64];
        for (int j = 0; j < 64; j++) {
            x[j] = normal(gen) * (kind == 2 ? std::exp(-j / 8.0) : 1.0) + (kind == 2 && j > 0 ? 0.7 * x[j - 1] : 0.0);
        }
        for (int i = 0; i < 64 * 64; i++) {
            a[i] += x[i / 64] * x[i % 64] / 40;
        }
    }
    return a;
}

static std::vector<uint8_t> store_for_scores(ggml_type                              type,
                                             const std::vector<float> &             x,
                                             int64_t                                n,
                                             const std::vector<ggml_turbo_factor> & factors,
                                             const std::vector<int64_t> &           idxs) {
    const int64_t              n_rows = (int64_t) idxs.size();
    const std::vector<uint8_t> empty(ggml_row_size(type, n) * n_rows);
    cpu_graph                  graph;
    ggml_context *             ctx   = graph.ctx.get();
    ggml_tensor * const        cache = ggml_reshape_2d(ctx, graph.input(type, n * n_rows, empty.data()), n, n_rows);
    ggml_tensor * const        rows = ggml_reshape_2d(ctx, graph.input(GGML_TYPE_F32, n * n_rows, x.data()), n, n_rows);
    ggml_tensor * const        where   = graph.input(GGML_TYPE_I64, n_rows, idxs.data());
    const int64_t              n_bytes = (int64_t) (factors.size() * sizeof(ggml_turbo_factor));
    ggml_tensor * const        f       = ggml_reshape_2d(ctx, graph.input(GGML_TYPE_I8, n_bytes, factors.data()),
                                                         sizeof(ggml_turbo_factor), (int64_t) factors.size());

    return graph.compute(ggml_turbo_set_rows(ctx, cache, rows, where, f));
}

static void test_scores(const codec & c, int per_row) {
    const std::string name     = ggml_type_name(c.type);
    const int         n_kinds  = 3;
    const int64_t     width    = 64 * per_row;
    const int         n_blocks = 1000 * per_row;

    std::mt19937                     gen(3);
    std::vector<ggml_turbo_factor>   factors(per_row);
    std::vector<std::vector<double>> moments;
    for (int kind = 0; kind < n_kinds; kind++) {
        moments.push_back(query_moment(kind, gen));
    }
    for (int b = 0; b < per_row; b++) {
        ggml_turbo_make_factor(moments[b % n_kinds].data(), &factors[b]);
    }

    // rows are stored from the last to the first
    std::vector<int64_t> idxs(n_blocks / per_row);
    for (size_t i = 0; i < idxs.size(); i++) {
        idxs[i] = (int64_t) (idxs.size() - 1 - i);
    }
    const auto compare = [&](const std::vector<float> & x, const std::string & what) {
        std::vector<uint8_t> ref(ggml_row_size(c.type, width) * idxs.size());
        for (size_t i = 0; i < idxs.size(); i++) {
            quantize_turbo_scores_ref(c.type, &x[width * i], &ref[(size_t) idxs[i] * per_row * c.bytes], width,
                                      factors.data());
        }
        const auto got      = store_for_scores(c.type, x, width, factors, idxs);
        int        n_differ = 0;
        for (size_t i = 0; i < ref.size(); i += c.bytes) {
            n_differ += memcmp(got.data() + i, ref.data() + i, c.bytes) != 0;
        }
        check(n_differ == 0 && ggml_validate_row_data(c.type, ref.data(), ref.size()) == (what != "not finite"),
              name + " for scores on the CPU gives the reference's bytes, " + what + ": " + std::to_string(n_differ) +
                  " differ");
        return ref;
    };

    auto               special = turbo_test_blocks(c.levels, n_blocks);
    std::vector<float> finite  = special;
    for (float & v : finite) {
        v = std::isfinite(v) ? v : 0.0f;
    }
    compare(special, "not finite");
    compare(finite, "finite");

    std::normal_distribution<float> normal;
    std::vector<float>              x(64 * n_blocks);
    for (float & v : x) {
        v = normal(gen);
    }
    const auto rounded = dequantize(c.type, compare(x, "Gaussian"));
    const auto nearest = dequantize(c.type, quantize(c.type, x));

    // what queries see of the errors, as a part of what they see if each value is rounded to the nearest
    for (int kind = 1; kind < n_kinds; kind++) {
        double before = 0.0;
        double after  = 0.0;
        for (size_t i = 0; i < idxs.size(); i++) {
            const size_t at = width * i + 64 * (kind + n_kinds * (i % (per_row / n_kinds)));
            const size_t to = at - width * i + width * (size_t) idxs[i];
            for (int j = 0; j < 64 * 64; j++) {
                before += moments[kind][j] * (x[at + j / 64] - nearest[at + j / 64]) *
                          (x[at + j % 64] - nearest[at + j % 64]);
                after += moments[kind][j] * (x[at + j / 64] - rounded[to + j / 64]) *
                         (x[at + j % 64] - rounded[to + j % 64]);
            }
        }
        const double most = kind == 1 ? .75 : .5;
        check(after < most * before, name + " for scores loses " + std::to_string(after / before) +
                                         " of what the nearest levels lose, less than " + std::to_string(most));
    }
}

static std::vector<float> vector_input(size_t i) {
    std::vector<float> x(64);
    memcpy(x.data(), turbo_vectors[i].x, sizeof(turbo_vectors[i].x));
    return x;
}

static const uint8_t * vector_bytes(const codec & c, size_t i) {
    return c.bits == 2 ? turbo_vectors[i].turbo2 : c.bits == 3 ? turbo_vectors[i].turbo3 : turbo_vectors[i].turbo4;
}

// the bytes that every kernel of every backend must give
static void test_vectors(const codec & c) {
    int n_ref = 0, n_cpu = 0;
    for (size_t i = 0; i < std::size(turbo_vectors); i++) {
        const auto x = vector_input(i);
        const auto q = quantize(c.type, x);
        n_ref += memcmp(q.data(), vector_bytes(c, i), c.bytes) != 0;
        n_cpu += memcmp(cpu_quantize(c.type, x).data(), vector_bytes(c, i), c.bytes) != 0;
    }
    const std::string of = " of " + std::to_string(std::size(turbo_vectors)) + " pinned vectors differ: ";
    check(n_ref == 0, std::string(ggml_type_name(c.type)) + " reference, blocks" + of + std::to_string(n_ref));
    check(n_cpu == 0, std::string(ggml_type_name(c.type)) + " CPU quantizer, blocks" + of + std::to_string(n_cpu));
}

static std::vector<std::vector<float>> make_vectors() {
    std::mt19937                    gen(5);
    std::normal_distribution<float> normal;

    std::vector<std::vector<float>> all;
    auto                            add = [&](float scale) -> std::vector<float> & {
        all.emplace_back(64);
        for (float & v : all.back()) {
            v = normal(gen) * scale;
        }
        return all.back();
    };

    for (float scale : { 1.0f, 0.01f, 30.0f, 1e-5f, 1e-20f, 1e-42f, 3e4f, 1e30f }) {
        add(scale);
    }
    for (int i = 0; i < 4; i++) {  // groups of different size
        auto & x = add(1.0f);
        for (int j = 0; j < 64; j++) {
            x[j] *= (i + 1) >> (j / 16 % 2) ? 1.0f + i * (j / 16) : 0.1f;
        }
    }
    add(1.0f)[17] = 40.0f;  // one large value
    for (float constant : { 0.0f, -0.0f, -2.5f }) {
        all.emplace_back(64, constant);
    }
    all.emplace_back(64, 0.0f)[63] = 1.0f;
    add(1.0f)[0]                   = NAN;
    add(1.0f)[31]                  = -INFINITY;
    add(1.0f)[5]                   = std::numeric_limits<float>::max();
    for (const codec & c : codecs) {  // midpoints between levels
        auto & x = all.emplace_back(64);
        for (int j = 0; j < 64; j++) {
            const auto & l = c.levels[0];
            const int    m = j % (int) l.size();
            x[j]           = (j % 2 ? -0.5f : 0.5f) * (m == 0 ? 2 * l.back() : l[m] + l[m - 1]);
        }
    }
    return all;
}

static void print_vectors() {
    printf(
        "#pragma once\n\n"
        "// Made by `test-turbo --vectors`: 64 floats as bits, and the block of each type that they become.\n\n"
        "#include <cstdint>\n\n"
        "// clang-format off\n"
        "static const struct {\n"
        "    uint32_t x[64];\n"
        "    uint8_t  turbo2[18];\n"
        "    uint8_t  turbo3[26];\n"
        "    uint8_t  turbo4[34];\n"
        "} turbo_vectors[] = {\n");
    for (const auto & x : make_vectors()) {
        printf("    {\n        {");
        for (int j = 0; j < 64; j++) {
            uint32_t bits;
            memcpy(&bits, &x[j], sizeof(bits));
            printf("%s0x%08x,", j % 8 == 0 ? "\n            " : " ", bits);
        }
        printf("\n        },\n");
        for (const codec & c : codecs) {
            printf("        {");
            for (uint8_t b : quantize(c.type, x)) {
                printf(" 0x%02x,", b);
            }
            printf(" },\n");
        }
        printf("    },\n");
    }
    printf("};\n// clang-format on\n");
}

static void test_vec_dot(const codec & c) {
    std::mt19937                    gen(2);
    std::normal_distribution<float> normal;
    std::vector<float>              x(64 * 9), q(64 * 9);
    for (size_t i = 0; i < x.size(); i++) {
        x[i] = normal(gen);
        q[i] = normal(gen);
    }

    const auto xq = quantize(c.type, x);
    const auto qq = quantize(GGML_TYPE_Q8_0, q);

    cpu_graph  graph;
    auto *     a      = graph.input(c.type, x.size(), xq.data());
    auto *     b      = graph.input(GGML_TYPE_Q8_0, q.size(), qq.data());
    const auto result = graph.compute(ggml_mul_mat(graph.ctx.get(), a, b));
    float      dot;
    memcpy(&dot, result.data(), sizeof(dot));

    const auto xd  = dequantize(c.type, xq);
    const auto qd  = dequantize(GGML_TYPE_Q8_0, qq);
    double     ref = 0, size = 0;
    for (size_t i = 0; i < x.size(); i++) {
        ref += (double) xd[i] * qd[i];
        size += std::fabs((double) xd[i] * qd[i]);
    }
    check(std::fabs(dot - ref) < 1e-6 * size,
          std::string(ggml_type_name(c.type)) + " vec_dot is the product of the decoded values");
}

// the decoder that CPU ops use, through a cast
static void test_cast(ggml_type type) {
    const size_t  size = ggml_type_size(type);
    const int64_t n    = 1000 * ggml_blck_size(type);

    std::mt19937         gen(4);
    std::vector<uint8_t> q(size * 1000);
    for (uint8_t & b : q) {
        b = gen();
    }
    for (size_t i = 0; i < q.size(); i += size) {
        q[i + 1] &= ggml_is_turbo(type) ? 0xbf : 0x3f;  // a finite step
    }

    const auto got = cpu_cast(type, q.data(), n, GGML_TYPE_F32);
    const auto ref = dequantize(type, q);
    check(memcmp(got.data(), ref.data(), ref.size() * sizeof(float)) == 0,
          std::string(ggml_type_name(type)) + " CPU decoder gives the reference's values");
}

// R = H*D as llama.cpp computes it: signs, then a Hadamard product with the hint; inverse: the other way round
static std::vector<float> rotate(const std::vector<float> & x, int64_t n, bool inverse) {
    std::vector<float> signs(n), hadamard(n * n);
    for (int64_t i = 0; i < n; i++) {
        signs[i] = ggml_turbo_sign(i);
        for (int64_t j = 0; j < n; j++) {
            int64_t bits = i & j, odd = 0;
            for (; bits; bits &= bits - 1) {
                odd ^= 1;
            }
            hadamard[i * n + j] = (odd ? -1.0f : 1.0f) / sqrtf((float) n);
        }
    }

    ggml_init_params params = { 1 << 22, nullptr, false };
    ggml_context *   ctx    = ggml_init(params);

    const auto tensor = [&](const std::vector<float> & data, int64_t rows) {
        ggml_tensor * t = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, rows);
        memcpy(t->data, data.data(), ggml_nbytes(t));
        return t;
    };

    ggml_tensor * d   = tensor(signs, 1);
    ggml_tensor * h   = tensor(hadamard, n);
    ggml_tensor * cur = tensor(x, (int64_t) x.size() / n);

    cur = inverse ? cur : ggml_mul(ctx, cur, d);
    cur = ggml_mul_mat(ctx, h, cur);
    ggml_mul_mat_set_hint(cur, GGML_HINT_SRC0_IS_HADAMARD);
    cur = inverse ? ggml_mul(ctx, cur, d) : cur;

    ggml_cgraph * gf = ggml_new_graph(ctx);
    ggml_build_forward_expand(gf, cur);
    ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_backend_graph_compute(cpu, gf);
    ggml_backend_free(cpu);

    std::vector<float> res((const float *) cur->data, (const float *) cur->data + x.size());
    ggml_free(ctx);
    return res;
}

static void test_rotation(int64_t n) {
    std::mt19937                    gen(n);
    std::normal_distribution<float> normal;

    std::vector<float> x(5 * n);
    for (float & v : x) {
        v = normal(gen);
    }
    const auto once  = rotate(x, n, false);
    const auto back  = rotate(once, n, true);
    const auto twice = rotate(once, n, false);

    double off = 0, involution = 0;
    for (size_t i = 0; i < x.size(); i++) {
        off        = std::max(off, (double) std::fabs(back[i] - x[i]));
        involution = std::max(involution, (double) std::fabs(twice[i] - x[i]));
    }
    const std::string name = "rotation of " + std::to_string(n);
    check(off < 1e-5, name + " is undone by its inverse");
    check(involution > 0.5, name + " is not its own inverse, as the plain Hadamard is");
}

int main(int argc, char ** argv) {
    if (argc == 2 && strcmp(argv[1], "--vectors") == 0) {
        print_vectors();
        return 0;
    }
    // an emulator takes minutes for the usual number of blocks
    const bool given    = argc == 3 && strcmp(argv[1], "--blocks") == 0;
    const int  n_blocks = argc == 1 ? 100000 : given ? atoi(argv[2]) : 0;
    if (n_blocks <= 0) {
        fprintf(stderr, "usage: %s [--vectors | --blocks N]\n", argv[0]);
        return 2;
    }
    ggml_backend_load_all();

    for (const codec & c : codecs) {
        test_tables(c);
        test_special(c);
        test_validation(c);
        test_gaussian(c);
        test_vectors(c);
        test_bits(c, n_blocks);
        test_scores(c, 3);
        test_scores(c, 12);
        test_cast(c.type);
        test_vec_dot(c);
    }

    for (ggml_type type : { GGML_TYPE_Q8_0, GGML_TYPE_Q5_0, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL }) {
        test_cast(type);
    }

    test_no_types();
    test_other_backends();

    for (int64_t n : { 16, 64, 128, 256 }) {
        test_rotation(n);
    }

    check(ggml_turbo_rot_width(64) == 64 && ggml_turbo_rot_width(80) == 16 && ggml_turbo_rot_width(192) == 64 &&
              ggml_turbo_rot_width(576) == 64 && ggml_turbo_rot_width(512) == 256,
          "width is the largest power of two that divides the head, at most 256");

    // 0x243f6a88 85a308d3: the first bits are 1 1 0 0 1 0 1 1
    const float first[8] = { -1, -1, 1, 1, -1, 1, -1, -1 };
    bool        signs    = true;
    for (int i = 0; i < 8; i++) {
        signs = signs && ggml_turbo_sign(i) == first[i];
    }
    check(signs, "signs are the bits of pi");

    test_attention(check);
    test_row_chains(check);

    printf("%s\n", n_failed == 0 ? "all ok" : (std::to_string(n_failed) + " failed").c_str());
    return n_failed == 0 ? 0 : 1;
}
