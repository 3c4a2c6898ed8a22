// The CUDA kernels of the turbo types, run on the CPU behind shim.h and compared with ggml-turbo.c.
//
// Prints "ok: ..." or "FAILED: ..." a line. The argument is the number of random blocks.

#include "shim.h"

#include "ggml-backend.h"

// flash attention's own functions for upstream's types, which are not tested here
template <ggml_type type_K, int D, int nthreads> static constexpr int get_vec_dot_KQ() {
    return 0;
}

template <ggml_type type_V, typename T, int ne> static constexpr int get_dequantize_V() {
    return 0;
}

#include "test-turbo-blocks.h"
#include "test-turbo-vectors.h"
#include "turbo-fattn.cuh"
#include "turbo-kernels.cuh"

#include <cstdarg>
#include <string>

// what ggml-turbo.c needs of ggml.c, which is not linked
extern "C" void ggml_abort(const char * file, int line, const char * fmt, ...) {
    printf("FAILED: %s:%d: %s\n", file, line, fmt);
    exit(1);
}

extern "C" size_t ggml_row_size(ggml_type, int64_t) {
    abort();
}

extern "C" const ggml_type_traits * ggml_get_type_traits(ggml_type) {
    abort();
}

extern "C" size_t ggml_type_size(ggml_type) {
    abort();
}

extern "C" const char * ggml_type_name(ggml_type) {
    abort();
}

extern "C" enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t) {
    abort();
}

extern "C" ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t) {
    abort();
}

extern "C" const char * ggml_backend_reg_name(ggml_backend_reg_t) {
    abort();
}

static void check(bool ok, const std::string & what) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", what.c_str());
}

// equal bits, or both NaN
static bool same(float a, float b) {
    return (std::isnan(a) && std::isnan(b)) || __float_as_uint(a) == __float_as_uint(b);
}

static bool same(half a, float b) {
    return same(__half2float(a), GGML_FP16_TO_FP32(GGML_FP32_TO_FP16(b)));
}

static bool same(nv_bfloat16 a, float b) {
    return same(GGML_BF16_TO_FP32(ggml_bf16_t{ a.bits }), GGML_BF16_TO_FP32(GGML_FP32_TO_BF16(b)));
}

template <typename block_t> struct reference;

#define REFERENCE(N)                                                                      \
    template <> struct reference<block_turbo##N> {                                        \
        static constexpr ggml_type type       = GGML_TYPE_TURBO##N;                       \
        static constexpr auto &    codebook   = ggml_turbo##N##_codebook;                 \
        static constexpr auto &    levels     = ggml_turbo##N##_levels;                   \
        static constexpr auto      quantize   = quantize_row_turbo##N##_ref;              \
        static constexpr auto      dequantize = dequantize_row_turbo##N;                  \
        static const uint8_t *     pinned(size_t i) { return turbo_vectors[i].turbo##N; } \
        static std::string         name() { return "turbo" #N; }                          \
    };

REFERENCE(2)
REFERENCE(3)
REFERENCE(4)

template <typename block_t> using blocks = std::vector<block_t>;

template <typename block_t> static blocks<block_t> quantize(const std::vector<float> & x) {
    blocks<block_t> y(x.size() / QK_TURBO);
    reference<block_t>::quantize(x.data(), y.data(), x.size());
    return y;
}

template <typename block_t> static std::vector<float> dequantize(const blocks<block_t> & x) {
    std::vector<float> y(x.size() * QK_TURBO);
    reference<block_t>::dequantize(x.data(), y.data(), y.size());
    return y;
}

// strides of a contiguous tensor whose first dimension has units of nb0 bytes
static turbo_index contiguous(const turbo_index & ne, int64_t nb0) {
    return { nb0, nb0 * ne.i[0], nb0 * ne.i[0] * ne.i[1], nb0 * ne.i[0] * ne.i[1] * ne.i[2] };
}

static dim3 warps(size_t n_blocks) {
    return { (unsigned) ((n_blocks + CUDA_TURBO_WARPS - 1) / CUDA_TURBO_WARPS) };
}

static const dim3 warp_dims = { 32, CUDA_TURBO_WARPS };

// x as n rows to a contiguous tensor of other rows
template <typename block_t> static blocks<block_t> kernel_quantize(const std::vector<float> & x) {
    const size_t      n = x.size() / QK_TURBO;
    blocks<block_t>   y(n);
    const turbo_index from = { (int64_t) n, 1, 1, 1 };
    const turbo_index to   = n % 20 == 0 ? turbo_index{ 5, 2, (int64_t) n / 20, 2 } : from;
    launch(warps(n), warp_dims, true, [&] {
        k_turbo_cpy_f32_q<block_t>((const char *) x.data(), (char *) y.data(), n, from,
                                   contiguous(from, QK_TURBO * sizeof(float)), to, contiguous(to, sizeof(block_t)));
    });
    return y;
}

template <typename block_t> static int differing(const blocks<block_t> & a, const blocks<block_t> & b) {
    int n = 0;
    for (size_t i = 0; i < a.size(); i++) {
        n += memcmp(&a[i], &b[i], sizeof(block_t)) != 0;
    }
    return n;
}

template <typename block_t> static void test_tables() {
    using ref       = reference<block_t>;
    using codec     = turbo_codec<block_t>;
    const auto & cb = ref::codebook;

    bool ok = cb.n == codec::n && cb.sigma == codec::sigma && cb.norm_weight == codec::norm_weight &&
              cb.n_trials == codec::n_trials;
    for (int t = 0; t < codec::n_trials; t++) {
        ok = ok && cb.trials[t] == codec::trial(t);
    }
    for (int w = 0; w < 2; w++) {
        for (int i = 0; i < codec::n; i++) {
            ok = ok && cb.magnitudes[w][i] == codec::magnitude(w, i);
            ok = ok && (i + 1 == codec::n || cb.edges[w][i] == codec::edge(w, i));
        }
        for (int i = 0; i < 2 * codec::n; i++) {
            ok = ok && ref::levels[w][i] == turbo_level<block_t>(w, i);
        }
    }
    check(ok, ref::name() + " tables are the reference's");
}

template <typename block_t> static void test_pinned() {
    std::vector<float> x;
    for (const auto & v : turbo_vectors) {
        for (uint32_t bits : v.x) {
            x.push_back(__uint_as_float(bits));
        }
    }
    const auto y = kernel_quantize<block_t>(x);
    int        n = 0;
    for (size_t i = 0; i < y.size(); i++) {
        n += memcmp(&y[i], reference<block_t>::pinned(i), sizeof(block_t)) != 0;
    }
    check(n == 0 && y.size() > 20, reference<block_t>::name() + " quantizes " + std::to_string(y.size()) +
                                       " pinned vectors: " + std::to_string(n) + " blocks differ");
}

template <typename block_t> static std::vector<float> test_blocks(int n_blocks) {
    std::vector<int> levels[2];
    for (int w = 0; w < 2; w++) {
        for (int i = 0; i < turbo_codec<block_t>::n; i++) {
            levels[w].push_back(turbo_codec<block_t>::magnitude(w, i));
        }
    }
    return turbo_test_blocks(levels, n_blocks);
}

template <typename block_t> static void test_quantize(int n_blocks) {
    const auto x = test_blocks<block_t>(n_blocks);
    const int  n = differing(kernel_quantize<block_t>(x), quantize<block_t>(x));
    check(n == 0, reference<block_t>::name() + " quantizes " + std::to_string(n_blocks) +
                      " random and adversarial blocks: " + std::to_string(n) + " differ");
}

// rows with gaps go to rows of dst in another order; the third and fourth dimension of src1 are broadcast
template <typename block_t, typename idx_t> static void test_set_rows() {
    const turbo_index ne = { 3, 7, 4, 2 };  // blocks a row, rows, ...
    const int64_t     n = 3 * 7 * 4 * 2, ne11 = 2, ne12 = 1, rows = 11;

    const auto         x = test_blocks<block_t>(n);
    std::vector<float> padded((n / 3) * 4 * QK_TURBO, 0.0f);  // a block of gap behind each row
    for (int64_t r = 0; r < n / 3; r++) {
        std::copy_n(x.data() + r * 3 * QK_TURBO, 3 * QK_TURBO, padded.data() + r * 4 * QK_TURBO);
    }

    std::vector<idx_t> index(7 * ne11 * ne12);
    for (size_t i = 0; i < index.size(); i++) {
        index[i] = (i * 5 + i / 7) % rows;
    }

    const turbo_index nb  = contiguous({ 4, 7, 4, 2 }, QK_TURBO * sizeof(float));
    const turbo_index nbd = contiguous({ 3, rows, 4, 2 }, sizeof(block_t));
    const turbo_index nb1 = contiguous({ 7, ne11, ne12, 1 }, sizeof(idx_t));

    blocks<block_t> got(3 * rows * 4 * 2), wanted(3 * rows * 4 * 2);
    memset(got.data(), 0x55, got.size() * sizeof(block_t));
    memset(wanted.data(), 0x55, wanted.size() * sizeof(block_t));

    const auto quantized = quantize<block_t>(x);
    for (int64_t i = 0; i < n; i++) {
        const int64_t b = i % 3, r = i / 3 % 7, i2 = i / 21 % 4, i3 = i / 84;
        wanted[b + 3 * (index[r + 7 * (i2 % ne11)] + rows * (i2 + 4 * i3))] = quantized[i];
    }

    launch(warps(n), warp_dims, true, [&] {
        k_turbo_set_rows<idx_t, block_t>((const char *) padded.data(), (const char *) index.data(), (char *) got.data(),
                                         n, ne, nb, nb1, nbd, ne11, ne12);
    });
    check(differing(got, wanted) == 0, reference<block_t>::name() + " SET_ROWS with " +
                                           std::to_string(8 * sizeof(idx_t)) + "-bit rows writes the rows it should");
}

// every step with every choice of tables, codes at random
template <typename block_t> static blocks<block_t> any_blocks() {
    std::mt19937    gen(4);
    blocks<block_t> x(1 << 16);
    for (size_t i = 0; i < x.size(); i++) {
        auto * bytes = (uint8_t *) &x[i];
        std::generate_n(bytes, sizeof(block_t), [&] { return (uint8_t) gen(); });
        x[i].d = i;
    }
    return x;
}

template <typename T> static int differing_values(const std::vector<T> & got, const std::vector<float> & wanted) {
    int n = 0;
    for (size_t i = 0; i < got.size(); i++) {
        n += !same(got[i], wanted[i]);
    }
    return n;
}

template <typename block_t> static void check_decoded(int n, const char * what) {
    check(n == 0, reference<block_t>::name() + " " + what + ": " + std::to_string(n) + " values differ");
}

template <typename block_t> static void test_cpy_q_f32(const blocks<block_t> & x, const std::vector<float> & wanted) {
    const turbo_index  from = { 16, (int64_t) x.size() / 64, 2, 2 }, to = { (int64_t) x.size(), 1, 1, 1 };
    std::vector<float> y(wanted.size());
    const int          per_cuda_block = CUDA_TURBO_THREADS / (QK_TURBO / 4);
    launch({ (unsigned) x.size() / per_cuda_block }, { CUDA_TURBO_THREADS }, false, [&] {
        k_turbo_cpy_q_f32<block_t>((const char *) x.data(), (char *) y.data(), x.size(), from,
                                   contiguous(from, sizeof(block_t)), to, contiguous(to, QK_TURBO * sizeof(float)));
    });
    check_decoded<block_t>(differing_values(y, wanted), "CPY to f32 of any bytes");
}

template <typename block_t, typename T>
static void test_convert(const blocks<block_t> & x, const std::vector<float> & wanted, const char * what) {
    const int64_t  n = wanted.size();
    std::vector<T> y(n);
    const dim3     block = { CUDA_TURBO_THREADS };
    launch({ (unsigned) (n / 4 / CUDA_TURBO_THREADS) }, block, false,
           [&] { k_turbo_convert<block_t>(x.data(), y.data(), n, 1, 1, 1, { 1, 0, 0, 0 }); });
    check_decoded<block_t>(differing_values(y, wanted), what);

    // rows of 2 blocks, in another order: as K of a permuted cache
    const int64_t      ne01 = 16, ne02 = 32, ne03 = x.size() / (2 * ne01 * ne02);
    const turbo_index  nb = { 1, 2 * ne02, 2, 2 * ne01 * ne02 };
    std::vector<float> permuted(n);
    for (int64_t i = 0; i < n / QK_TURBO; i++) {
        const int64_t from =
            i % 2 + nb.i[1] * (i / 2 % ne01) + nb.i[2] * (i / 2 / ne01 % ne02) + nb.i[3] * (i / 2 / ne01 / ne02);
        std::copy_n(wanted.data() + from * QK_TURBO, QK_TURBO, permuted.data() + i * QK_TURBO);
    }
    launch({ 1, 5, 7 }, block, false,
           [&] { k_turbo_convert<block_t>(x.data(), y.data(), 2 * QK_TURBO, ne01, ne02, ne03, nb); });
    check_decoded<block_t>(differing_values(y, permuted), (std::string(what) + " of permuted rows").c_str());
}

template <typename block_t, typename T>
static void test_get_rows(const blocks<block_t> & x, const std::vector<float> & wanted, const char * what) {
    const int64_t     ne00 = 4 * QK_TURBO, ne01 = 64, ne02 = 2, ne10 = 9, ne11 = 2, ne12 = 1;
    const turbo_index nb  = contiguous({ 4, ne01, ne02, 1 }, sizeof(block_t));
    const turbo_index nb1 = contiguous({ ne10, ne11, ne12, 1 }, sizeof(int32_t));
    const turbo_index nbd = contiguous({ ne00, ne10, ne11, ne12 }, sizeof(T));

    std::vector<int32_t> index(ne10 * ne11 * ne12);
    for (size_t i = 0; i < index.size(); i++) {
        index[i] = (i * 29 + 3) % ne01;
    }
    std::vector<T>     y(ne00 * index.size());
    std::vector<float> rows(y.size());
    for (size_t i = 0; i < index.size(); i++) {
        const int64_t row = index[i] + ne01 * (i / ne10);
        std::copy_n(wanted.data() + row * ne00, ne00, rows.data() + i * ne00);
    }
    launch({ (unsigned) ne10, 1, 2 }, { CUDA_TURBO_THREADS }, false, [&] {
        k_turbo_get_rows<block_t, T>((const char *) x.data(), (const char *) index.data(), (char *) y.data(), ne00,
                                     ne11, ne12, nb, nb1, nbd);
    });
    check_decoded<block_t>(differing_values(y, rows), what);
}

template <typename block_t, typename T>
static void test_v(const blocks<block_t> & x, const std::vector<float> & wanted, const char * what) {
    std::vector<T> y(wanted.size());
    for (size_t i = 0; i < y.size(); i += 4) {
        alignas(16) T four[4];
        dequantize_V_turbo<reference<block_t>::type, T, 4>(x.data(), four, i);
        std::copy_n(four, 4, y.data() + i);
    }
    check_decoded<block_t>(differing_values(y, wanted), what);
}

// A row of K times Q: what the threads of the vector kernel add up. Q is rounded to bytes, which alone moves the product by
// up to half a step of Q for each value of K; the sums themselves are within a few roundings of floats.
template <typename block_t, int D> static void test_vec_dot() {
    constexpr int nthreads = D / 4 < 32 ? D / 4 : 32;
    constexpr int per      = D / 4 / nthreads;

    std::mt19937                    gen(6);
    std::normal_distribution<float> normal;
    double                          worst_float = 0, worst_sum = 0;
    for (int round = 0; round < 500; round++) {
        std::vector<float> k(D), q(D);
        const float        scale = std::pow(10.0f, round % 9 - 4);
        std::generate(k.begin(), k.end(), [&] { return normal(gen) * scale; });
        std::generate(q.begin(), q.end(), [&] { return normal(gen); });

        const auto K = quantize<block_t>(k);
        k            = dequantize(K);

        std::vector<int8_t> q8(D);
        std::vector<float2> ds(D / 32);
        double              exact = 0, bound = 0, exact_q8 = 0, size = 0;
        for (int b = 0; b < D / 32; b++) {
            float amax = 0;
            for (int j = 32 * b; j < 32 * b + 32; j++) {
                amax = std::fmax(amax, std::fabs(q[j]));
            }
            ds[b] = { amax / 127, 0 };
            for (int j = 32 * b; j < 32 * b + 32; j++) {
                q8[j] = std::round(q[j] / ds[b].x);
                exact += (double) k[j] * q[j];
                exact_q8 += (double) k[j] * q8[j] * ds[b].x;
                bound += std::fabs(k[j]) * ds[b].x * 0.5001;
                size += std::fabs((double) k[j] * q8[j] * ds[b].x);
            }
        }

        double sum = 0;
        for (threadIdx.x = 0; threadIdx.x < (unsigned) nthreads; threadIdx.x++) {
            int    Q_i32[per];
            float2 Q_ds[per];
            for (int i = 0; i < per; i++) {
                const int j = 4 * (i * nthreads + threadIdx.x);
                memcpy(&Q_i32[i], &q8[j], 4);
                Q_ds[i] = ds[j / 32];
            }
            sum += vec_dot_fattn_vec_KQ_turbo<reference<block_t>::type, D, nthreads>((const char *) K.data(), nullptr,
                                                                                     Q_i32, Q_ds);
        }
        worst_float = std::fmax(worst_float, std::fabs(sum - exact) / bound);
        worst_sum   = std::fmax(worst_sum, std::fabs(sum - exact_q8) / size);
    }
    const std::string what = reference<block_t>::name() + " K*Q of " + std::to_string(D) + " values";
    check(worst_float <= 1 && worst_float > 0,
          what + " is within the rounding of Q: at most " + std::to_string(worst_float) + " of its bound");
    check(worst_sum < 1e-6, what + " equals that of the rounded Q within 1e-6: " + std::to_string(worst_sum));
}

template <typename block_t> static void test_all(int n_blocks) {
    test_tables<block_t>();
    test_pinned<block_t>();
    test_quantize<block_t>(n_blocks);
    test_set_rows<block_t, int32_t>();
    test_set_rows<block_t, int64_t>();

    const auto x      = any_blocks<block_t>();
    const auto wanted = dequantize(x);
    test_cpy_q_f32(x, wanted);
    test_convert<block_t, float>(x, wanted, "conversion to f32");
    test_convert<block_t, half>(x, wanted, "conversion to f16");
    test_convert<block_t, nv_bfloat16>(x, wanted, "conversion to bf16");
    test_get_rows<block_t, float>(x, wanted, "GET_ROWS to f32");
    test_get_rows<block_t, half>(x, wanted, "GET_ROWS to f16");
    test_get_rows<block_t, nv_bfloat16>(x, wanted, "GET_ROWS to bf16");
    test_v<block_t, float>(x, wanted, "V in flash attention as f32");
    test_v<block_t, half>(x, wanted, "V in flash attention as f16");

    test_vec_dot<block_t, 64>();
    test_vec_dot<block_t, 128>();
    test_vec_dot<block_t, 256>();
}

int main(int argc, char ** argv) {
    const int n_blocks = argc > 1 ? atoi(argv[1]) : 100000;
    test_all<block_turbo2>(n_blocks);
    test_all<block_turbo3>(n_blocks);
    test_all<block_turbo4>(n_blocks);
}
