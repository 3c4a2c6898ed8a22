// How long attention over a cache takes on the CPU, as llama.cpp asks for it: one line of JSON for each cell.
//
// test-attention-speed [--types f16,turbo4] [--heads 64] [--groups 3] [--heads-kv 3] [--tokens 1] [--depths 4096]
//                      [--threads 1] [--softcap 0] [--rounds 20] [--mib 64]
//
// Lists are separated by commas. A type is that of both sides, or K/V; a head size is that of both sides, or K/V, where V is
// then the first part of K, as in a latent cache. Each round computes every type of a shape once, so that what else the machine
// does meets all of them. --mib: a cache has as many layers as fill this, so that it lies in memory as a model's would.

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <vector>

using strings = std::vector<std::string>;

static strings split(const std::string & list, char separator) {
    strings items;
    for (size_t first = 0, last; first <= list.size(); first = last + 1) {
        last = std::min(list.find(separator, first), list.size());
        items.push_back(list.substr(first, last - first));
    }
    return items;
}

[[noreturn]] static void refuse(const std::string & what) {
    fprintf(stderr, "test-attention-speed: %s\n", what.c_str());
    exit(2);
}

static int64_t parse_number(const std::string & text) {
    char *        end;
    const int64_t n = strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end || n < 0 || n > 1 << 30) {
        refuse("not a number that can be used: '" + text + "'");
    }
    return n;
}

static ggml_type parse_type(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            return (ggml_type) i;
        }
    }
    refuse("unknown type '" + name + "'");
}

struct shape {
    std::string head;  // as it was given
    int64_t     dk, dv, group, heads_kv, tokens, depth, softcap;

    bool latent() const { return head.find('/') != std::string::npos; }
};

// a cache of some layers, and a graph of one attention for each
class attention {
  public:
    attention(ggml_backend_t backend, const shape & s, const std::string & types, int64_t mib) :
        backend(backend),
        types(types) {
        const strings   sides = split(types, '/');
        const ggml_type tk = parse_type(sides.front()), tv = parse_type(sides.back());
        if (s.latent() && tk != tv) {
            refuse("a latent cache has one type");
        }
        if (s.dk % ggml_blck_size(tk) != 0 || s.dv % ggml_blck_size(tv) != 0) {
            refuse("no block of " + types + " fits heads of " + s.head);
        }

        const int64_t row   = ggml_row_size(tk, s.dk) + (s.latent() ? 0 : ggml_row_size(tv, s.dv));
        const int64_t bytes = row * s.heads_kv * s.depth;
        n_layers            = std::max<int64_t>(1, mib * 1024 * 1024 / bytes);

        const size_t n_tensors = 8 * n_layers + 8;
        ctx.reset(ggml_init(
            { n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false), nullptr, true }));
        graph = ggml_new_graph_custom(ctx.get(), n_tensors, false);

        ggml_tensor * q = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, s.dk, s.group * s.heads_kv, s.tokens);
        ggml_tensor * m = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, s.depth, s.tokens);
        for (int64_t i = 0; i < n_layers; i++) {
            caches.push_back(ggml_new_tensor_3d(ctx.get(), tk, s.dk, s.heads_kv, s.depth));
            ggml_tensor * k = ggml_permute(ctx.get(), caches.back(), 0, 2, 1, 3);
            ggml_tensor * v = ggml_view_3d(ctx.get(), k, s.dv, s.depth, s.heads_kv, k->nb[1], k->nb[2], 0);
            if (!s.latent()) {
                caches.push_back(ggml_new_tensor_3d(ctx.get(), tv, s.dv, s.heads_kv, s.depth));
                v = ggml_permute(ctx.get(), caches.back(), 0, 2, 1, 3);
            }
            ggml_build_forward_expand(graph,
                                      ggml_flash_attn_ext(ctx.get(), ggml_permute(ctx.get(), q, 0, 2, 1, 3), k, v, m,
                                                          1.0f / std::sqrt((float) s.dk), 0.0f, (float) s.softcap));
        }
        buffer.reset(ggml_backend_alloc_ctx_tensors(ctx.get(), backend));
        if (!buffer) {
            refuse("not enough memory");
        }
        n_bytes = bytes * n_layers;
        n_reads = n_layers * s.depth * s.heads_kv;
        fill(q);
        for (ggml_tensor * t : caches) {
            fill(t);
        }
        fill_mask(m);
    }

    // ns for each cell and KV head; also of CPU time, which other programs on a shared machine touch less
    double compute(double * cpu = nullptr) const {
        const clock_t start = clock();
        const double  ns =
            timed([this] { GGML_ASSERT(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS); });
        if (cpu) {
            *cpu = 1e9 * (double) (clock() - start) / CLOCKS_PER_SEC / n_reads;
        }
        return ns;
    }

    // the same for reading the cache and nothing else, by one thread
    double read() const {
        return timed([this] {
            uint64_t sum = 0;
            for (const ggml_tensor * t : caches) {
                const uint64_t * words = (const uint64_t *) t->data;
                for (size_t n = ggml_nbytes(t) / sizeof(*words), i = 0; i < n; i++) {
                    sum += words[i];
                }
            }
            static volatile uint64_t sink;
            sink = sum;
            (void) sink;
        });
    }

    int64_t layers() const { return n_layers; }

    int64_t bytes() const { return n_bytes / n_reads; }

    const std::string & name() const { return types; }

    std::vector<double> computed, cpu, reads;

  private:
    ggml_backend_t             backend;
    std::string                types;
    ggml_context_ptr           ctx;
    ggml_backend_buffer_ptr    buffer;
    ggml_cgraph *              graph;
    std::vector<ggml_tensor *> caches;
    int64_t                    n_layers, n_bytes, n_reads;

    template <typename F> double timed(const F & f) const {
        const auto start = std::chrono::steady_clock::now();
        f();
        return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / n_reads;
    }

    // values of a normal distribution; a period of them, since what they are does not matter to the time
    static void fill(ggml_tensor * t) {
        std::mt19937                    gen(3);
        std::normal_distribution<float> normal;
        const int64_t                   n = t->ne[0], n_rows = ggml_nrows(t), period = std::min<int64_t>(n_rows, 509);
        std::vector<float>              x(n * period);
        std::vector<char>               rows(period * ggml_row_size(t->type, n));
        for (float & value : x) {
            value = normal(gen);
        }
        ggml_quantize_chunk(t->type, x.data(), rows.data(), 0, period, n, nullptr);
        for (int64_t r = 0; r < n_rows; r += period) {
            ggml_backend_tensor_set(t, rows.data(), r * t->nb[1], std::min(period, n_rows - r) * t->nb[1]);
        }
    }

    // the last tokens of the cache are those that ask
    static void fill_mask(ggml_tensor * m) {
        std::vector<ggml_fp16_t> x(ggml_nelements(m), ggml_fp32_to_fp16(0.0f));
        for (int64_t t = 0; t < m->ne[1]; t++) {
            std::fill(x.begin() + (t + 1) * m->ne[0] - (m->ne[1] - 1 - t), x.begin() + (t + 1) * m->ne[0],
                      ggml_fp32_to_fp16(-INFINITY));
        }
        ggml_backend_tensor_set(m, x.data(), 0, ggml_nbytes(m));
    }
};

static double median(std::vector<double> x) {
    std::sort(x.begin(), x.end());
    return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

static double smallest(const std::vector<double> & x) {
    return *std::min_element(x.begin(), x.end());
}

static void print(const attention & a, const shape & s, int64_t threads) {
    printf("{\"types\": \"%s\", \"head\": \"%s\", \"group\": %d, \"heads_kv\": %d, \"tokens\": %d, \"depth\": %d, ",
           a.name().c_str(), s.head.c_str(), (int) s.group, (int) s.heads_kv, (int) s.tokens, (int) s.depth);
    printf("\"softcap\": %d, \"threads\": %d, \"layers\": %d, \"rounds\": %d, \"bytes\": %d, ", (int) s.softcap,
           (int) threads, (int) a.layers(), (int) a.computed.size(), (int) a.bytes());
    printf("\"ns_min\": %.3f, \"ns_median\": %.3f, \"cpu_ns_min\": %.3f, \"cpu_ns_median\": %.3f, ",
           smallest(a.computed), median(a.computed), smallest(a.cpu), median(a.cpu));
    printf("\"read_ns_min\": %.3f, \"read_ns_median\": %.3f}\n", smallest(a.reads), median(a.reads));
    fflush(stdout);
}

struct options {
    std::map<std::string, std::string> values{
        { "--types",    "f16,q8_0,turbo4" },
        { "--heads",    "64"              },
        { "--groups",   "3"               },
        { "--heads-kv", "3"               },
        { "--tokens",   "1"               },
        { "--depths",   "4096"            },
        { "--threads",  "1"               },
        { "--softcap",  "0"               },
        { "--rounds",   "20"              },
        { "--mib",      "64"              },
    };

    options(int argc, char ** argv) {
        for (int i = 1; i < argc; i += 2) {
            if (i + 1 == argc || values.count(argv[i]) == 0) {
                refuse(std::string("cannot use '") + argv[i] + "'; see the head of its source");
            }
            values[argv[i]] = argv[i + 1];
        }
    }

    strings list(const std::string & name) const { return split(values.at(name), ','); }

    std::vector<int64_t> numbers(const std::string & name) const {
        std::vector<int64_t> n;
        for (const std::string & text : list(name)) {
            n.push_back(parse_number(text));
        }
        return n;
    }

    // at least 1
    int64_t count(const std::string & name) const { return std::max<int64_t>(1, parse_number(values.at(name))); }

    std::vector<shape> shapes() const {
        std::vector<shape> all;
        for (const std::string & head : list("--heads")) {
            const strings sides = split(head, '/');
            for (int64_t group : numbers("--groups")) {
                for (int64_t tokens : numbers("--tokens")) {
                    for (int64_t depth : numbers("--depths")) {
                        all.push_back({ head, parse_number(sides.front()), parse_number(sides.back()), group,
                                        count("--heads-kv"), tokens, depth, parse_number(values.at("--softcap")) });
                        const shape & s = all.back();
                        if (s.dk < 1 || s.dv < 1 || s.dv > s.dk || group < 1 || tokens < 1 || depth < tokens) {
                            refuse("a shape of nothing, a V wider than K, or fewer cells than tokens");
                        }
                    }
                }
            }
        }
        return all;
    }
};

static void measure(ggml_backend_t backend, const shape & s, const options & given, int64_t threads) {
    std::vector<attention> all;
    for (const std::string & types : given.list("--types")) {
        all.emplace_back(backend, s, types, given.count("--mib"));
        all.back().compute();
    }
    for (int64_t i = 0; i < given.count("--rounds"); i++) {
        for (attention & a : all) {
            double cpu;
            a.computed.push_back(a.compute(&cpu));
            a.cpu.push_back(cpu);
            a.reads.push_back(a.read());
        }
    }
    for (const attention & a : all) {
        print(a, s, threads);
    }
}

int main(int argc, char ** argv) {
    const options given(argc, argv);

    ggml_backend_load_all();
    ggml_backend_dev_t     dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const ggml_backend_ptr cpu(ggml_backend_dev_init(dev, nullptr));
    auto *                 set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(dev), "ggml_backend_set_n_threads");

    for (int64_t threads : given.numbers("--threads")) {
        set_n_threads(cpu.get(), (int) std::max<int64_t>(1, threads));
        for (const shape & s : given.shapes()) {
            measure(cpu.get(), s, given, threads);
        }
    }
    return 0;
}
