// Saved states, of a context and of a sequence, in files and in memory: what is damaged, or was saved under another
// rotation or cache type, is refused with a reason, ends no process and leaves nothing of it behind.
//
//     test-kv-state MODEL...
//
// Any model does, also those without a vocabulary that test-llama-archs -o writes for every kind of memory.

#include "ggml-turbo.h"
#include "ggml.h"
#include "llama-cpp.h"
#include "llama.h"
#include "test-set-env.h"

// TODO: the fields of a state are found by watching what is written
#include "../src/llama-io.h"
#include "../src/llama-memory.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

using bytes  = std::vector<uint8_t>;
using tokens = std::vector<llama_token>;

static int         n_tests  = 0;
static int         n_failed = 0;
static std::string log_text;
static std::string state_path;

static void check(bool ok, const std::string & what) {
    n_tests++;
    n_failed += !ok;
    if (!ok) {
        printf("FAILED: %s\n      log: %s\n", what.c_str(), log_text.c_str());
    }
}

static void log_callback(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        log_text += text;
    }
}

//
// contexts
//

struct setting {
    ggml_type    type_k;
    ggml_type    type_v;
    const char * rot_k;
    const char * rot_v;
    bool         flash_attn;

    std::string name() const {
        return std::string(ggml_type_name(type_k)) + "/" + ggml_type_name(type_v) + (*rot_k == '1' ? " k" : "") +
               (*rot_v == '1' ? " v" : "") + (flash_attn ? "" : " no-fa");
    }
};

static llama_context_ptr context_of(llama_model * model, const setting & s) {
    test_set_env("LLAMA_ATTN_ROT_K_OVERRIDE", s.rot_k);
    test_set_env("LLAMA_ATTN_ROT_V_OVERRIDE", s.rot_v);

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 256;
    params.n_batch              = 32;
    params.n_ubatch             = 32;
    params.n_seq_max            = 2;
    params.n_threads            = 1;
    params.n_threads_batch      = 1;
    params.type_k               = s.type_k;
    params.type_v               = s.type_v;
    params.flash_attn_type      = s.flash_attn ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;

    return llama_context_ptr(llama_init_from_model(model, params));
}

// the greedy token after each token of the text, which continues the sequence; empty if it was refused
static tokens answer(llama_context * ctx, const tokens & text, llama_seq_id seq_id = 0) {
    const llama_pos p0 = llama_memory_seq_pos_max(llama_get_memory(ctx), seq_id) + 1;

    llama_batch batch = llama_batch_init((int32_t) text.size(), 0, 1);
    for (size_t i = 0; i < text.size(); i++) {
        batch.token[i]     = text[i];
        batch.pos[i]       = p0 + (llama_pos) i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq_id;
        batch.logits[i]    = 1;
    }
    batch.n_tokens = (int32_t) text.size();

    tokens    res;
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    if (llama_decode(ctx, batch) == 0) {
        for (size_t i = 0; i < text.size(); i++) {
            const float * logits = llama_get_logits_ith(ctx, (int32_t) i);
            // a NaN compares as smaller than everything, so a row of them would be token 0: look for them
            res.push_back(std::any_of(logits, logits + n_vocab, [](float x) { return x != x; }) ?
                              -1 :
                              (llama_token) (std::max_element(logits, logits + n_vocab) - logits));
        }
    }
    llama_batch_free(batch);

    return res;
}

//
// states
//

// the fields of a state: everything but the rows
struct recorder : public llama_io_write_i {
    struct field {
        size_t pos;
        size_t size;
        bool   early;  // before the rows of the third tensor: the layers after it are alike
    };

    void write(const void *, size_t size) override {
        // structures are fields of 4 bytes
        for (size_t i = 0; i < size; i += size == 8 ? 8 : 4) {
            fields.push_back({ pos + i, size == 8 ? 8u : 4u, n_tensors < 3 });
        }
        pos += size;
    }

    void write_tensor(ggml_tensor *, size_t, size_t size) override {
        n_tensors++;
        pos += size;
    }

    size_t n_bytes() override { return pos; }

    size_t             pos       = 0;
    int                n_tensors = 0;
    std::vector<field> fields;
};

// a way to save and to restore
struct form {
    const char * name;
    bool         seq;
    bool         file;

    // n_prefix: bytes before what the memory writes
    bytes save(llama_context * ctx, const tokens & text, size_t & n_prefix) const;
    bool  load(llama_context * ctx, const bytes & data) const;
};

static const form forms[] = {
    { "sequence in memory", true,  false },
    { "context in a file",  false, true  },
    { "sequence in a file", true,  true  },
    { "context in memory",  false, false },
};

static bytes read_file(const std::string & path) {
    std::ifstream f(path, std::ios::binary);
    return bytes(std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>());
}

bytes form::save(llama_context * ctx, const tokens & text, size_t & n_prefix) const {
    bytes res;
    if (file) {
        const bool ok = seq ? llama_state_seq_save_file(ctx, state_path.c_str(), 0, text.data(), text.size()) > 0 :
                              llama_state_save_file(ctx, state_path.c_str(), text.data(), text.size());
        if (!ok) {
            throw std::runtime_error("saving failed");
        }
        res = read_file(state_path);
    } else if (seq) {
        res.resize(llama_state_seq_get_size(ctx, 0));
        llama_state_seq_get_data(ctx, res.data(), res.size(), 0);
    } else {
        res.resize(llama_state_get_size(ctx));
        llama_state_get_data(ctx, res.data(), res.size());
    }

    recorder rec;
    llama_get_memory(ctx)->state_write(rec, seq ? 0 : -1);
    n_prefix = res.size() - rec.pos;

    return res;
}

bool form::load(llama_context * ctx, const bytes & data) const {
    log_text.clear();
    if (!file) {
        return (seq ? llama_state_seq_set_data(ctx, data.data(), data.size(), 0) :
                      llama_state_set_data(ctx, data.data(), data.size())) > 0;
    }

    std::ofstream(state_path, std::ios::binary).write((const char *) data.data(), (std::streamsize) data.size());

    tokens text(64);
    size_t n_text = 0;
    return seq ? llama_state_seq_load_file(ctx, state_path.c_str(), 0, text.data(), text.size(), &n_text) > 0 :
                 llama_state_load_file(ctx, state_path.c_str(), text.data(), text.size(), &n_text);
}

//
// tests
//

struct bench {
    llama_context_ptr ctx;    // restored into; sequence 0 holds other text before each restore
    tokens            text;   // saved
    tokens            after;  // continues it
    tokens            other;
    tokens            answer_after;
    tokens            answer_other;

    bench(llama_model * model, const setting & s) : ctx(context_of(model, s)) {
        if (!ctx) {
            return;
        }
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        for (int i = 0; i < 7; i++) {
            (i < 5 ? text : after).push_back((1000 + 37 * i) % n_vocab);
            other.push_back((2000 + 91 * i) % n_vocab);
        }
        other.resize(2);

        auto first   = context_of(model, s);
        answer_other = answer(first.get(), other);

        auto second = context_of(model, s);
        answer(second.get(), text);
        answer_after = answer(second.get(), after);
    }

    // after a refusal: nothing is there and the next answer is that of a new context
    void refused(const std::string & what) {
        check(!log_text.empty(), what + ": refused without a reason");
        check(llama_memory_seq_pos_max(llama_get_memory(ctx.get()), 0) == -1, what + ": something is left");
        check(answer(ctx.get(), other) == answer_other, what + ": the next answer is not that of a new context");
    }

    // as before a restore
    void reset(const form & f) {
        if (f.seq) {
            llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, -1, -1);
        } else {
            llama_memory_clear(llama_get_memory(ctx.get()), true);
        }
        check(answer(ctx.get(), other) == answer_other,
              std::string(f.name) + ": the answer after a removal is not that of a new context");
    }
};

static void test_truncated(bench & b, const form & f, const bytes & data, const std::string & what) {
    // recurrent states are large
    for (size_t n = 0; n < data.size(); n += std::max<size_t>(997, data.size() / 400)) {
        const std::string name = what + " cut at " + std::to_string(n);
        const bool        ok   = f.load(b.ctx.get(), bytes(data.begin(), data.begin() + n));
        check(!ok, name + ": accepted");
        b.refused(name);
    }
}

// what was accepted gives the same answer, or is what the altered bytes say, as far as anybody can know
static void test_accepted(bench & b, const form & f, const bytes & data, const std::string & what) {
    size_t n_prefix = 0;
    bytes  again    = f.save(b.ctx.get(), b.text, n_prefix);

    const bool as_said =
        again.size() == data.size() && std::equal(again.begin() + n_prefix, again.end(), data.begin() + n_prefix);
    check(as_said || answer(b.ctx.get(), b.after) == b.answer_after, what + ": accepted as something else");

    b.reset(f);
}

static void test_altered(bench & b, const form & f, const bytes & data, size_t n_prefix, const std::string & what) {
    recorder rec;
    llama_get_memory(b.ctx.get())->state_write(rec, f.seq ? 0 : -1);

    std::vector<recorder::field> fields;
    for (size_t pos = 0; pos + 4 <= n_prefix; pos += 4) {
        fields.push_back({ pos, 4, true });
    }
    for (const auto & field : rec.fields) {
        // one form for the layers that are like those before
        if (!field.early && &f != forms) {
            continue;
        }
        fields.push_back({ field.pos + n_prefix, field.size, field.early });
    }

    for (const auto & field : fields) {
        uint64_t value = 0;
        memcpy(&value, data.data() + field.pos, field.size);

        std::vector<uint64_t> altered = { value + 1 };
        if (field.early) {
            altered.insert(altered.end(), { 0, 1, 0xffffffff, value ^ 1u << 24 });
        }
        for (const uint64_t a : altered) {
            bytes bad = data;
            memcpy(bad.data() + field.pos, &a, field.size);
            if (bad == data) {
                continue;
            }

            const std::string name = what + " field at " + std::to_string(field.pos) + " of " +
                                     std::to_string(n_prefix) + "+: " + std::to_string(value) + " -> " +
                                     std::to_string(a);
            if (f.load(b.ctx.get(), bad)) {
                test_accepted(b, f, bad, name);
            } else {
                b.refused(name);
            }
        }
    }
}

static void test_damage(llama_model * model, const setting & s, size_t n_forms) {
    for (size_t i = 0; i < n_forms; i++) {
        const form & f = forms[i];

        bench b(model, s);
        if (!b.ctx) {
            printf("  %s: not for this model\n", s.name().c_str());
            return;
        }
        const std::string what = s.name() + ", " + f.name;

        size_t     n_prefix = 0;
        const auto saved    = context_of(model, s);
        answer(saved.get(), b.text);
        const bytes data = f.save(saved.get(), b.text, n_prefix);

        if (f.seq) {
            answer(b.ctx.get(), b.text, 1);
        }

        // the fields are looked up in the context that is restored into
        check(f.load(b.ctx.get(), data), what + ": refused");
        const int n_before        = n_tests;
        const int n_failed_before = n_failed;
        test_altered(b, f, data, n_prefix, what);
        test_truncated(b, f, data, what);

        check(f.load(b.ctx.get(), data), what + ": refused");
        check(answer(b.ctx.get(), b.after) == b.answer_after, what + ": another answer");
        if (f.seq) {
            check(answer(b.ctx.get(), b.after, 1) == b.answer_after, what + ": another answer in the other sequence");
        }

        printf("%s: %s: %zu bytes, %d checks\n", n_failed == n_failed_before ? "ok" : "FAILED", what.c_str(),
               data.size(), n_tests - n_before);
    }
}

// every state into every context
static void test_rotations(llama_model * model) {
    const setting settings[] = {
        { GGML_TYPE_F16,    GGML_TYPE_F16,    "0", "0", true  },
        { GGML_TYPE_F16,    GGML_TYPE_F16,    "0", "0", false },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0,   "0", "0", true  },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0,   "1", "0", true  },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0,   "0", "1", true  },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0,   "1", "1", true  },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "0", true  },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "1", "0", true  },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO4, "0", "0", true  },
        { GGML_TYPE_Q8_0,   GGML_TYPE_TURBO4, "0", "0", true  },
    };

    for (const auto & to : settings) {
        bench b(model, to);
        if (!b.ctx) {
            printf("  %s: not for this model\n", to.name().c_str());
            continue;
        }
        for (const auto & from : settings) {
            auto saved = context_of(model, from);
            if (!saved) {
                continue;
            }
            answer(saved.get(), b.text);

            // a setting may not matter for the heads of this model
            size_t     n_prefix = 0;
            const bool same     = [&]() {
                auto twin = context_of(model, to);
                answer(twin.get(), b.text);
                const bytes x = forms[0].save(saved.get(), b.text, n_prefix);
                const bytes y = forms[0].save(twin.get(), b.text, n_prefix);
                return x == y;
            }();

            for (size_t i = 0; i < 2; i++) {
                const std::string what = std::string(forms[i].name) + ", " + from.name() + " into " + to.name();
                const bytes       data = forms[i].save(saved.get(), b.text, n_prefix);
                const bool        ok   = forms[i].load(b.ctx.get(), data);

                check(ok == same, what + (ok ? ": accepted" : ": refused"));
                if (ok) {
                    check(answer(b.ctx.get(), b.after) == b.answer_after, what + ": another answer");
                    b.reset(forms[i]);
                    continue;
                }
                const auto says = [&](const std::string & text) {
                    check(log_text.find(text) != std::string::npos, what + ": the reason does not say " + text);
                };
                if (from.flash_attn != to.flash_attn) {
                    says(from.flash_attn ? "-fa on" : "-fa off");
                } else if (from.type_k != to.type_k) {
                    says(std::string("-ctk ") + ggml_type_name(from.type_k));
                } else if (*from.rot_k != *to.rot_k) {
                    says(*from.rot_k == '1' ? "set LLAMA_ATTN_ROT_K_OVERRIDE=1 LLAMA_ATTN_ROT_K_NROT=" :
                                              "unset LLAMA_ATTN_ROT_K_OVERRIDE");
                } else if (from.type_v != to.type_v) {
                    says(std::string("-ctv ") + ggml_type_name(from.type_v));
                } else {
                    says(*from.rot_v == '1' ? "set LLAMA_ATTN_ROT_V_OVERRIDE=1 LLAMA_ATTN_ROT_V_NROT=" :
                                              "unset LLAMA_ATTN_ROT_V_OVERRIDE");
                }
                b.refused(what);
            }
        }
    }
}

// the signs and widths that the revision in a state stands for
static void test_revision() {
    uint64_t   hash = 14695981039346656037u;
    const auto add  = [&](uint64_t x) {
        hash = (hash ^ x) * 1099511628211u;
    };

    for (int64_t i = 0; i < GGML_TURBO_ROT_MAX; i++) {
        add(ggml_turbo_sign(i) < 0);
    }
    for (int64_t n = 64; n <= 1024; n += 64) {
        add((uint64_t) ggml_turbo_rot_width(n));
    }

    const uint64_t expected = 0xfff19278ad3ca802;
    if (hash != expected || GGML_TURBO_ROT_REVISION != 1) {
        printf("signs or widths: %016" PRIx64 ", revision %d\n", hash, GGML_TURBO_ROT_REVISION);
    }
    check(hash == expected && GGML_TURBO_ROT_REVISION == 1,
          "the turbo rotation changed: raise GGML_TURBO_ROT_REVISION and pin it here");
}

int main(int argc, char ** argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL...\n", argv[0]);
        return 1;
    }

    setvbuf(stdout, nullptr, _IOLBF, 0);
    llama_log_set(log_callback, nullptr);
    llama_backend_init();

    test_revision();

    for (int i = 1; i < argc; i++) {
        printf("%s\n", argv[i]);
        // programs that run beside each other must not read each other's
        state_path = "test-kv-state." + std::to_string(std::random_device()()) + ".tmp.bin";

        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers       = 0;
        llama_model_ptr model(llama_model_load_from_file(argv[i], params));
        if (!model) {
            printf("%s\n", log_text.c_str());
            return 1;
        }

        test_rotations(model.get());
        test_damage(model.get(), { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4, "0", "0", true }, 4);
        test_damage(model.get(), { GGML_TYPE_F16, GGML_TYPE_F16, "0", "0", false }, 2);

        std::remove(state_path.c_str());
    }

    printf("%d of %d checks failed\n", n_failed, n_tests);
    llama_backend_free();

    return n_failed > 0;
}
