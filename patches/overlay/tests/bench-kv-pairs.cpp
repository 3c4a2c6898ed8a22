// How much longer a model takes with one KV cache than with another: two contexts of one process in turn, token by
// token and prompt by prompt. What disturbs the machine disturbs both, so that pairs resolve differences of less than
// a percent where two programs one after the other differ from themselves by ten.

#include "llama-cpp.h"
#include "llama-kv-calibration.h"
#include "llama.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

// tokens that are decoded before a cache is set back to its depth
constexpr int N_BEHIND = 64;

struct options {
    std::string model;
    std::string caches[2];  // TYPE_K,TYPE_V,CALIBRATION

    int n_threads = 2;
    int depth     = 0;
    int n_prompt  = 256;  // tokens of a prompt
    int n_prompts = 20;
    int n_decode  = 600;
    int n_rounds  = 4;
};

static const char * USAGE =
    "usage: bench-kv-pairs -m MODEL -a CACHE -b CACHE [options]\n"
    "\n"
    "CACHE is TYPE_K,TYPE_V,CALIBRATION as in turbo4,turbo4,auto; a calibration is auto, off or a file\n"
    "\n"
    "  -t N         threads (2)\n"
    "  -d N         tokens in the caches beforehand (0)\n"
    "  -p N         tokens of a prompt (256)\n"
    "  --prompts N  prompts of a round (20)\n"
    "  -n N         tokens decoded in a round (600)\n"
    "  -r N         rounds, each with new contexts, in turn in the other order (4)\n"
    "\n"
    "prints one JSON document a line for prompts and for decoding: ratio is the time with -b by that with -a\n";

static options options_of(int argc, char ** argv) {
    options                                    res;
    const std::map<std::string, std::string *> texts = {
        { "-m", &res.model     },
        { "-a", &res.caches[0] },
        { "-b", &res.caches[1] },
    };
    const std::map<std::string, int *> numbers = {
        { "-t",        &res.n_threads },
        { "-d",        &res.depth     },
        { "-p",        &res.n_prompt  },
        { "--prompts", &res.n_prompts },
        { "-n",        &res.n_decode  },
        { "-r",        &res.n_rounds  },
    };
    bool ok = true;
    for (int i = 1; i < argc && ok; i += 2) {
        const auto text   = texts.find(argv[i]);
        const auto number = numbers.find(argv[i]);
        ok                = i + 1 < argc && (text != texts.end() || number != numbers.end());
        if (ok && text != texts.end()) {
            *text->second = argv[i + 1];
        } else if (ok) {
            char * end      = nullptr;
            *number->second = (int) strtol(argv[i + 1], &end, 10);
            ok              = end != argv[i + 1] && *end == '\0' && *number->second >= 0;
        }
    }
    if (!ok || res.model.empty() || res.caches[0].empty() || res.caches[1].empty() || res.n_threads < 1 ||
        res.n_prompt < 1 || res.n_rounds < 1) {
        fputs(USAGE, stderr);
        exit(2);
    }

    return res;
}

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            return (ggml_type) i;
        }
    }
    throw std::runtime_error("no type " + name);
}

static llama_context_ptr context_of(llama_model * model, const options & opts, const std::string & cache) {
    const size_t first  = cache.find(',');
    const size_t second = first == std::string::npos ? first : cache.find(',', first + 1);
    if (second == std::string::npos || second + 1 == cache.size()) {
        throw std::runtime_error(cache + " is not TYPE_K,TYPE_V,CALIBRATION");
    }

    auto params            = llama_context_default_params();
    params.n_ctx           = (uint32_t) (opts.depth + std::max(opts.n_prompt, N_BEHIND));
    params.n_batch         = (uint32_t) std::max(opts.n_prompt, 512);
    params.n_ubatch        = params.n_batch;
    params.n_threads       = opts.n_threads;
    params.n_threads_batch = opts.n_threads;
    params.type_k          = type_of(cache.substr(0, first));
    params.type_v          = type_of(cache.substr(first + 1, second - first - 1));
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;

    llama_kv_calibration_set(cache.substr(second + 1).c_str());
    llama_context_ptr res(llama_init_from_model(model, params));
    if (!res) {
        throw std::runtime_error("no context with " + cache);
    }

    return res;
}

// of a round: seconds of each pair
struct pairs {
    std::vector<double> seconds[2];
};

class site {
  public:
    site(llama_model * model, const options & opts, int first) : opts(opts), tokens(512) {
        n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        for (const int i : { first, 1 - first }) {
            ctx[i] = context_of(model, opts, opts.caches[i]);
        }
        for (int done = 0; done < opts.depth; done += 512) {
            next(512);
            for (const auto & c : ctx) {
                decode(c.get(), std::min(512, opts.depth - done));
            }
        }
    }

    // n_pairs times n_tokens on each
    pairs run(int n_pairs, int n_tokens) {
        pairs res;
        int   behind = 0;
        for (int k = -1; k < n_pairs; ++k) {
            next(n_tokens);
            if (k < 0 || behind + n_tokens > std::max(n_tokens, N_BEHIND)) {
                behind = 0;
                for (const auto & c : ctx) {
                    llama_memory_seq_rm(llama_get_memory(c.get()), 0, opts.depth, -1);
                }
            }
            behind += n_tokens;
            for (const int i : { k & 1, 1 - (k & 1) }) {
                const double seconds = decode(ctx[i].get(), n_tokens);
                if (k >= 0) {
                    res.seconds[i].push_back(seconds);
                }
            }
        }

        return res;
    }

  private:
    void next(int n) {
        tokens.resize((size_t) std::max(n, 512));
        for (auto & token : tokens) {
            token = (llama_token) (random() % (uint32_t) n_vocab);
        }
    }

    double decode(llama_context * c, int n) {
        const auto start = std::chrono::steady_clock::now();
        if (llama_decode(c, llama_batch_get_one(tokens.data(), n)) != 0) {
            throw std::runtime_error("tokens cannot be decoded");
        }
        llama_synchronize(c);

        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

    const options &          opts;
    llama_context_ptr        ctx[2];
    std::vector<llama_token> tokens;
    std::mt19937             random{ 1 };
    int                      n_vocab;
};

static double median(std::vector<double> values) {
    const auto middle = values.begin() + (std::ptrdiff_t) (values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());

    return *middle;
}

static void tell(const char * what, const std::vector<pairs> & rounds, const options & opts) {
    std::vector<double> a, b, logs;
    for (const auto & round : rounds) {
        std::vector<double> ratios;
        for (size_t i = 0; i < round.seconds[0].size(); ++i) {
            ratios.push_back(round.seconds[1][i] / round.seconds[0][i]);
        }
        if (ratios.empty()) {
            return;
        }
        a.push_back(median(round.seconds[0]));
        b.push_back(median(round.seconds[1]));
        logs.push_back(std::log(median(ratios)));
    }
    double sum = 0.0;
    for (const double value : logs) {
        sum += value;
    }

    printf(
        "{\"what\":\"%s\",\"a\":\"%s\",\"b\":\"%s\",\"threads\":%d,\"depth\":%d,\"pairs\":%zu,\"a_ms\":%.4f,"
        "\"b_ms\":%.4f,\"ratio\":%.4f,\"rounds\":[",
        what, opts.caches[0].c_str(), opts.caches[1].c_str(), opts.n_threads, opts.depth,
        rounds.size() * rounds[0].seconds[0].size(), 1e3 * median(a), 1e3 * median(b),
        std::exp(sum / (double) logs.size()));
    for (size_t i = 0; i < logs.size(); ++i) {
        printf("%s%.4f", i ? "," : "", std::exp(logs[i]));
    }
    printf("]}\n");
}

int main(int argc, char ** argv) {
    const options opts = options_of(argc, argv);
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                fputs(text, stderr);
            }
        },
        nullptr);
    llama_backend_init();
    const llama_model_ptr model(llama_model_load_from_file(opts.model.c_str(), llama_model_default_params()));
    if (!model) {
        return 1;
    }

    std::vector<pairs> prompts, decodes;
    try {
        for (int round = 0; round < opts.n_rounds; ++round) {
            site here(model.get(), opts, round & 1);
            prompts.push_back(here.run(opts.n_prompts, opts.n_prompt));
            decodes.push_back(here.run(opts.n_decode, 1));
        }
    } catch (const std::exception & err) {
        fprintf(stderr, "error: %s\n", err.what());
        return 1;
    }
    tell("prompt", prompts, opts);
    tell("decode", decodes, opts);

    return 0;
}
