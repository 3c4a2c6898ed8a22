// What happens to a KV cache whose device lacks kernels: with a stand-in for a GPU, which computes with the CPU backend but
// refuses chosen operations, nothing may abort, the logits must be those of the stand-in that refuses nothing, and what it
// cannot do must be said once.
//
// test-kv-device MODEL; devices other than CPUs that are really there are asked for the same caches.

#include "../ggml/src/ggml-backend-impl.h"
#include "../src/llama-kv-device.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "ggml.h"
#include "llama-cpp.h"
#include "llama.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

static int n_failed = 0;

static void check(bool ok, const std::string & what) {
    printf("%s: %s\n", ok ? "ok" : "FAILED", what.c_str());
    fflush(stdout);
    n_failed += !ok;
}

//
// the stand-in
//

using op_filter = std::function<bool(const ggml_tensor *)>;

// One device for the whole program: llama.cpp compares devices by address.
struct stand_in {
    ggml_backend_device      dev;
    ggml_backend_buffer_type buft;
    ggml_backend_dev_t       cpu     = nullptr;
    op_filter                refuses = nullptr;

    stand_in();
};

static stand_in & the_stand_in() {
    static stand_in res;
    return res;
}

static ggml_backend_t init_backend(ggml_backend_dev_t, const char * params) {
    // the CPU's backend, which says that it belongs to the stand-in
    ggml_backend_t backend  = ggml_backend_dev_init(the_stand_in().cpu, params);
    backend->device         = &the_stand_in().dev;
    backend->iface.get_name = [](ggml_backend_t) {
        return "Fake0";
    };
    return backend;
}

stand_in::stand_in() {
    cpu  = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    dev  = *cpu;
    buft = *ggml_backend_dev_buffer_type(cpu);

    buft.device         = &dev;
    buft.iface.get_name = [](ggml_backend_buffer_type_t) {
        return "Fake0";
    };

    dev.iface.get_name = [](ggml_backend_dev_t) {
        return "Fake0";
    };
    dev.iface.get_type = [](ggml_backend_dev_t) {
        return GGML_BACKEND_DEVICE_TYPE_GPU;
    };
    dev.iface.get_props = [](ggml_backend_dev_t self, ggml_backend_dev_props * props) {
        ggml_backend_dev_get_props(the_stand_in().cpu, props);
        props->name = ggml_backend_dev_name(self);
        props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
        props->caps = {};
    };
    dev.iface.init_backend         = init_backend;
    dev.iface.get_host_buffer_type = nullptr;
    dev.iface.get_buffer_type      = [](ggml_backend_dev_t) {
        return &the_stand_in().buft;
    };
    dev.iface.supports_op = [](ggml_backend_dev_t, const ggml_tensor * op) {
        stand_in & self = the_stand_in();
        return !(self.refuses && self.refuses(op)) && ggml_backend_dev_supports_op(self.cpu, op);
    };
}

//
// contexts
//

static std::string log_text;

static void keep_log(ggml_log_level, const char * text, void *) {
    log_text += text;
}

static size_t count(const std::string & text, const std::string & word) {
    size_t n = 0;
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + word.size())) {
        n++;
    }
    return n;
}

static llama_model_ptr load(const char * path, ggml_backend_dev_t dev) {
    ggml_backend_dev_t devices[] = { dev, nullptr };

    llama_model_params params = llama_model_default_params();
    params.devices            = devices;
    params.n_gpu_layers       = dev ? 99 : 0;

    return llama_model_ptr(llama_model_load_from_file(path, params));
}

struct cache {
    ggml_type             type_k;
    ggml_type             type_v;
    llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    uint32_t              n_ctx = 256;

    std::string name() const {
        return std::string(ggml_type_name(type_k)) + "/" + ggml_type_name(type_v) + " fa " +
               llama_flash_attn_type_name(flash) + ", " + std::to_string(n_ctx) + " cells";
    }
};

// logits after a prompt and a token; empty if there is no context. log_text is what was said meanwhile.
static std::vector<float> logits_of(llama_model * model, const cache & c) {
    log_text.clear();

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = c.n_ctx;
    params.n_batch              = 64;
    params.n_ubatch             = 64;
    params.n_threads            = 2;
    params.n_threads_batch      = 2;
    params.type_k               = c.type_k;
    params.type_v               = c.type_v;
    params.flash_attn_type      = c.flash;

    llama_context_ptr ctx(llama_init_from_model(model, params));
    if (!ctx) {
        return {};
    }

    std::vector<llama_token> tokens;
    for (int i = 0; i < 16; i++) {
        tokens.push_back(100 + 7 * i);
    }
    const bool done = llama_decode(ctx.get(), llama_batch_get_one(tokens.data(), 15)) == 0 &&
                      llama_decode(ctx.get(), llama_batch_get_one(tokens.data() + 15, 1)) == 0;
    if (!done) {
        return {};
    }

    const float * logits = llama_get_logits_ith(ctx.get(), -1);
    return { logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(model)) };
}

static const char * const lacks = " has no kernel ";

//
// tests
//

struct refusal {
    const char * name;
    op_filter    refuses;
};

static bool has_turbo(const ggml_tensor * op) {
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        if (op->src[i] && ggml_is_turbo(op->src[i]->type)) {
            return true;
        }
    }
    return ggml_is_turbo(op->type);
}

static void test_refusal(const refusal & r, const cache & c, llama_model * model, const std::vector<float> & expected) {
    // what the device cannot do with this very cache, found with tensors of this test's own
    ggml_context_ptr ctx{ ggml_init({ 1024 * ggml_tensor_overhead(), nullptr, true }) };

    const bool flash  = c.flash == LLAMA_FLASH_ATTN_TYPE_ENABLED;
    bool       write  = false;
    bool       attend = false;
    for (int64_t n_cells = 256; n_cells <= c.n_ctx; n_cells += 256) {
        for (int64_t n_tokens : { 1, 2, 3, 32, 64 }) {
            const auto new_3d = [&](ggml_type type, int64_t n_rows, int64_t n_head) {
                return ggml_new_tensor_3d(ctx.get(), type, 64, n_rows, n_head);
            };
            ggml_tensor * k    = new_3d(c.type_k, n_cells, 3);
            ggml_tensor * v    = new_3d(c.type_v, n_cells, 3);
            ggml_tensor * q    = new_3d(GGML_TYPE_F32, n_tokens, 9);
            ggml_tensor * rows = new_3d(GGML_TYPE_F32, n_tokens, 3);
            ggml_tensor * idxs = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I64, n_tokens);

            write  = write || r.refuses(ggml_set_rows(ctx.get(), k, rows, idxs)) ||
                     r.refuses(ggml_set_rows(ctx.get(), v, rows, idxs));
            attend = attend || r.refuses(flash ? ggml_flash_attn_ext(ctx.get(), q, k, v, nullptr, 1.0f, 0.0f, 0.0f) :
                                                 ggml_mul_mat(ctx.get(), k, q));
        }
    }
    const bool turbo  = ggml_is_turbo(c.type_k) || ggml_is_turbo(c.type_v);
    const bool on_cpu = write || (attend && turbo);

    the_stand_in().refuses = r.refuses;
    const auto        got  = logits_of(model, c);
    const std::string said = log_text;
    the_stand_in().refuses = nullptr;

    const std::string name   = std::string(r.name) + ", " + c.name();
    const size_t      n_said = count(said, lacks);
    const std::string types  = std::string("K ") + ggml_type_name(c.type_k) + ", V " + ggml_type_name(c.type_v);

    check(got.size() == expected.size() && !got.empty(), name + ": context made and tokens decoded");
    check(got == expected, name + ": logits as without the refusal");
    check(n_said == (write || attend ? 1 : 0), name + ": messages " + std::to_string(n_said));
    if (n_said) {
        const std::string message = said.substr(said.rfind('\n', said.find(lacks)) + 1);
        const bool named = message.find("Fake0") < message.find('\n') && message.find(types) < message.find('\n') &&
                           message.find("heads of ") < message.find('\n');
        const bool advice =
            message.find(" runs on it") < message.find('\n') || message.find("-fa off") < message.find('\n');
        check(named && advice, name + ": " + message.substr(0, message.find('\n')));
    }
    check((count(said, "CPU KV buffer") > 0) == on_cpu && (count(said, "Fake0 KV buffer") > 0) == !on_cpu,
          name + ": cache in memory of the " + (on_cpu ? "CPU" : "device"));
}

// what is asked of a device beside what this model does: attention with sinks, and the ways to read an indexer's keys
static void test_gaps() {
    llama_kv_use use  = {};
    use.type_k        = GGML_TYPE_TURBO4;
    use.type_v        = GGML_TYPE_TURBO4;
    use.n_embd_head_k = 128;
    use.n_embd_head_v = 128;
    use.n_head        = 8;
    use.n_head_kv     = 1;
    use.n_cells       = 4096;
    use.attention     = llama_kv_attention::flash;

    const auto gap_of = [](const llama_kv_use & use, const op_filter & refuses) {
        the_stand_in().refuses = refuses;
        const llama_kv_gap gap = llama_kv_find_gap(&the_stand_in().dev, use);
        the_stand_in().refuses = nullptr;
        return gap;
    };
    const auto is = [](ggml_op op) {
        return [op](const ggml_tensor * t) {
            return t->op == op;
        };
    };
    const auto sinks = [](const ggml_tensor * t) {
        return t->op == GGML_OP_FLASH_ATTN_EXT && t->src[4];
    };
    const auto whole = [](const ggml_tensor * t) {
        return t->op == GGML_OP_FLASH_ATTN_EXT && t->src[1]->ne[1] >= 4096;
    };

    check(gap_of(use, sinks) == llama_kv_gap::none, "attention without sinks is not asked for them");
    check(gap_of(use, whole) == llama_kv_gap::read, "attention over the whole cache is asked for");
    use.sinks = true;
    check(gap_of(use, sinks) == llama_kv_gap::read, "attention with sinks is asked for");

    use.attention = llama_kv_attention::indexer;
    check(gap_of(use, is(GGML_OP_FLASH_ATTN_EXT)) == llama_kv_gap::none, "an indexer needs no flash attention");
    check(gap_of(use, is(GGML_OP_SET_ROWS)) == llama_kv_gap::write, "an indexer's keys are written");
    check(gap_of(use, is(GGML_OP_GET_ROWS)) == llama_kv_gap::read, "an indexer's keys are gathered");
    check(gap_of(use, is(GGML_OP_LIGHTNING_INDEXER)) == llama_kv_gap::none &&
              gap_of(use, is(GGML_OP_MUL_MAT)) == llama_kv_gap::none,
          "an indexer's scores are one operation or several");
    check(gap_of(use,
                 [&](const ggml_tensor * t) { return is(GGML_OP_LIGHTNING_INDEXER)(t) || is(GGML_OP_MUL_MAT)(t); }) ==
              llama_kv_gap::read,
          "an indexer's scores are asked for");

    const int  n = 100;
    const auto t = ggml_time_us();
    for (int i = 0; i < n; i++) {
        llama_kv_find_gap(&the_stand_in().dev, use);
    }
    printf("a layer is asked for in %.3f ms\n", (ggml_time_us() - t) / 1000.0 / n);
}

// ids that name no type, as a caller built against other headers may use
static void test_no_types(llama_model * model) {
    for (int id : { -1, 4, 43, 99, (int) GGML_TYPE_COUNT, 1000 }) {
        for (const bool k : { false, true }) {
            const cache c = { k ? (ggml_type) id : GGML_TYPE_F16, k ? GGML_TYPE_F16 : (ggml_type) id };
            const bool  ok =
                logits_of(model, c).empty() && count(log_text, "there is no cache type " + std::to_string(id)) == 1;
            check(ok, "type " + std::to_string(id) + " of " + (k ? "K" : "V") + " is refused with a message");
        }
    }
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL\n", argv[0]);
        return 2;
    }

    ggml_backend_load_all();
    llama_backend_init();
    llama_log_set(keep_log, nullptr);

    const refusal refusals[] = {
        { "refuses nothing",                [](const ggml_tensor *) { return false; }                               },
        { "refuses to write turbo rows",
         [](const ggml_tensor * op) { return op->op == GGML_OP_SET_ROWS && has_turbo(op); }                         },
        { "refuses to attend to two types",
         [](const ggml_tensor * op) {
              return op->op == GGML_OP_FLASH_ATTN_EXT && op->src[1]->type != op->src[2]->type;
          }                                                                                                         },
        { "refuses flash attention",        [](const ggml_tensor * op) { return op->op == GGML_OP_FLASH_ATTN_EXT; } },
        { "refuses products with turbo",
         [](const ggml_tensor * op) { return op->op == GGML_OP_MUL_MAT && has_turbo(op); }                          },
    };

    const cache caches[] = {
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4 },
        { GGML_TYPE_Q8_0, GGML_TYPE_TURBO3 },
        { GGML_TYPE_TURBO2, GGML_TYPE_F16 },
        { GGML_TYPE_TURBO2, GGML_TYPE_F16, LLAMA_FLASH_ATTN_TYPE_DISABLED },
        { GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 },
        { GGML_TYPE_F16, GGML_TYPE_F16 },
    };

    // what a device refuses of some shapes only
    const refusal shapes[] = {
        { "refuses flash attention over 1024 cells",
         [](const ggml_tensor * op) { return op->op == GGML_OP_FLASH_ATTN_EXT && op->src[1]->ne[1] >= 1024; } },
        { "refuses flash attention of two tokens",
         [](const ggml_tensor * op) { return op->op == GGML_OP_FLASH_ATTN_EXT && op->src[0]->ne[1] == 2; }    },
        { "refuses flash attention of many tokens",
         [](const ggml_tensor * op) { return op->op == GGML_OP_FLASH_ATTN_EXT && op->src[0]->ne[1] >= 32; }   },
    };

    const cache long_caches[] = {
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, LLAMA_FLASH_ATTN_TYPE_ENABLED, 768  },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, LLAMA_FLASH_ATTN_TYPE_ENABLED, 2048 },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0,   LLAMA_FLASH_ATTN_TYPE_ENABLED, 1024 },
    };

    llama_model_ptr on_cpu = load(argv[1], nullptr);
    llama_model_ptr on_dev = load(argv[1], &the_stand_in().dev);
    if (!on_cpu || !on_dev) {
        fprintf(stderr, "%s\ncannot load %s\n", log_text.c_str(), argv[1]);
        return 1;
    }

    test_gaps();
    test_no_types(on_cpu.get());

    for (const cache & c : caches) {
        check(!logits_of(on_cpu.get(), c).empty() && count(log_text, lacks) == 0, "CPU, " + c.name() + ": no message");

        const auto expected = logits_of(on_dev.get(), c);
        for (const refusal & r : refusals) {
            test_refusal(r, c, on_dev.get(), expected);
        }
    }
    for (const cache & c : long_caches) {
        const auto expected = logits_of(on_dev.get(), c);
        for (const refusal & r : shapes) {
            test_refusal(r, c, on_dev.get(), expected);
        }
    }

    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_GPU &&
            ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_IGPU) {
            continue;
        }
        llama_model_ptr model = load(argv[1], dev);
        for (const cache & c : caches) {
            const auto        got = model ? logits_of(model.get(), c) : std::vector<float>();
            const std::string message =
                count(log_text, lacks) ? log_text.substr(log_text.rfind('\n', log_text.find(lacks)) + 1) : "";
            bool finite = !got.empty();
            for (float v : got) {
                finite = finite && std::isfinite(v);
            }
            check(finite, std::string(ggml_backend_dev_name(dev)) + ", " + c.name() + ": tokens decoded" +
                              (message.empty() ? "" : "; " + message.substr(0, message.find('\n'))));
        }
    }

    printf("%d failed\n", n_failed);
    return n_failed ? 1 : 0;
}
