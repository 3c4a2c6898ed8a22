// What a KV cache changes: a model over a text with an f16 cache and with another one side by side, a batch at a time.
//
// The statistics are those of llama-perplexity --kl-divergence, of the second half of each chunk, and nothing is stored
// on the way: of the logits, those of one batch exist at a time. The first half is told of by position alone.

#include "arg.h"
#include "common.h"
#include "kv-scores.h"
#include "llama-cpp.h"
#include "llama.h"
#include "log.h"

#include <algorithm>
#include <atomic>
#include <clocale>
#include <cmath>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

static void print_usage(int, char ** argv) {
    LOG("\nmeasures what -ctk and -ctv change, with the context -c of a chunk, and prints it as JSON, a line "
        "each:\n\n");
    LOG("    %s -m model.gguf -f text.txt -c 8192 -ctk q8_0 -ctv q8_0 [--chunks 4] [-b 512] [-ub 512]\n\n", argv[0]);
    LOG("-b tokens are computed at once with f16, -ub with the other cache, so that -ub 1 shows what text is "
        "generated\n");
    LOG("by. Logits take -b times the vocabulary times 8 bytes, and about as much again for computing them.\n\n");
}

// why these options are refused; empty if they are not
static std::string trouble_with(const common_params & params) {
    if (params.n_ctx < 3) {
        return "a chunk needs a context of 3 tokens or more: -c";
    }
    if (params.prompt.empty()) {
        return "there is no text: -f";
    }
    if (params.hellaswag || params.winogrande || params.multiple_choice || params.ppl_stride > 0 ||
        params.kl_divergence || !params.logits_file.empty()) {
        return "that is for llama-perplexity: leave out its tests, --ppl-stride, --kl-divergence and its file";
    }
    if (!params.lora_adapters.empty() || !params.control_vectors.empty()) {
        return "adapters and control vectors are not measured: leave them out";
    }
    if (params.n_batch < 1 || params.n_ubatch < 1) {
        return "batches have 1 token or more: -b and -ub";
    }

    return "";
}

static std::string trouble_with(const llama_model * model, const llama_context * ctx) {
    const llama_vocab * vocab = llama_model_get_vocab(model);
    if (!llama_model_has_decoder(model) || llama_model_has_encoder(model) || llama_get_memory(ctx) == nullptr) {
        return "the model has no cache that text is generated with";
    }
    if (llama_vocab_get_add_eos(vocab)) {
        return "the model ends each text by itself, which chunks of one cannot have";
    }

    return "";
}

// of all chunks so far
struct result {
    kv_totals                        totals;
    std::vector<kv_totals>           running;  // after each chunk
    std::vector<std::pair<int, int>> blocks;
    std::vector<kv_totals>           by_position;
    std::vector<double>              kld, p_diff;
};

// n tokens of a chunk from `pos` on; true if their logits are there
static bool decode(llama_context * ctx, const std::vector<llama_token> & tokens, int start, int pos, int n) {
    const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(ctx));
    common_batch        batch(ctx);
    for (int i = pos; i < pos + n; ++i) {
        const bool bos = i == 0 && llama_vocab_get_add_bos(vocab);
        batch.add(bos ? llama_vocab_bos(vocab) : tokens[start + i], i, 0, true);
    }

    return llama_process(ctx, LLAMA_PROCESS_TYPE_DECODE, batch.get()) == 0;
}

static std::vector<kv_score> scores_of(llama_context *     base,
                                       llama_context *     cell,
                                       const llama_token * next,
                                       int                 n,
                                       int                 n_threads) {
    const float * logits_base = llama_get_logits(base);
    const float * logits      = llama_get_logits(cell);
    const int     n_vocab     = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(base)));

    std::vector<kv_score> res(n);
    std::atomic<int>      counter(0);
    const auto            compute = [&]() {
        for (int i = counter++; i < n; i = counter++) {
            res[i] = kv_score_of(logits_base + (size_t) i * n_vocab, logits + (size_t) i * n_vocab, n_vocab, next[i]);
        }
    };

    std::vector<std::thread> workers;
    for (int i = 1; i < std::min(n, n_threads); ++i) {
        workers.emplace_back(compute);
    }
    compute();
    for (auto & worker : workers) {
        worker.join();
    }

    return res;
}

static bool measure(llama_context *                  base,
                    llama_context *                  cell,
                    const common_params &            params,
                    const std::vector<llama_token> & tokens,
                    int                              n_chunks,
                    result &                         res) {
    const int n_ctx = params.n_ctx;
    const int first = n_ctx / 2;
    res.blocks      = kv_blocks(n_ctx);
    res.by_position.resize(res.blocks.size());

    for (int chunk = 0; chunk < n_chunks; ++chunk) {
        const int start = chunk * n_ctx;
        size_t    block = 0;
        llama_memory_clear(llama_get_memory(base), true);
        llama_memory_clear(llama_get_memory(cell), true);
        for (int pos = 0; pos < n_ctx; pos += params.n_batch) {
            const int n = std::min(params.n_batch, n_ctx - pos);
            if (!decode(base, tokens, start, pos, n) || !decode(cell, tokens, start, pos, n)) {
                LOG_ERR("%s: failed to decode chunk %d at position %d\n", __func__, chunk + 1, pos);
                return false;
            }
            const int  n_next = std::min(n, n_ctx - 1 - pos);
            const auto scores =
                scores_of(base, cell, tokens.data() + start + pos + 1, n_next, params.cpuparams_batch.n_threads);
            for (int i = 0; i < n_next; ++i) {
                while (pos + i >= res.blocks[block].second) {
                    ++block;
                }
                res.by_position[block].add(scores[i]);
                if (pos + i >= first) {
                    res.totals.add(scores[i]);
                    res.kld.push_back(scores[i].kld);
                    res.p_diff.push_back(100.0 * scores[i].p_diff);
                }
            }
        }
        res.running.push_back(res.totals);
        LOG_INF("%s: chunk %d of %d: PPL %.4lf, f16 %.4lf, KLD %.6lf\n", __func__, chunk + 1, n_chunks,
                res.totals.ppl().value, res.totals.ppl_base().value, res.totals.kld.mean);
    }

    return true;
}

// a number of JSON, or the word for what is none
static std::string json(double value) {
    if (!std::isfinite(value)) {
        return std::isnan(value) ? "\"nan\"" : value > 0 ? "\"inf\"" : "\"-inf\"";
    }
    char buf[32];
    snprintf(buf, sizeof(buf), "%.15g", value);

    return buf;
}

static std::string json(const char * name, const kv_estimate & of) {
    return std::string("\"") + name + "\":{\"value\":" + json(of.value) + ",\"error\":" + json(of.error) + "}";
}

static std::string quantiles(const char * name, std::vector<double> values, const std::vector<double> & percents) {
    std::sort(values.begin(), values.end());
    std::string res = std::string("\"") + name + "\":{\"points\":";
    for (size_t i = 0; i < percents.size(); ++i) {
        res += (i ? ",[" : "[[") + json(percents[i]) + "," + json(kv_quantile(values, percents[i])) + "]";
    }

    return res + "]}";
}

static std::string shared(const kv_totals & of) {
    return json("ln_ratio", of.ln_ratio()) + "," + json("kld", of.kld.estimate()) + "," + json("rms_dp", of.rms_dp()) +
           "," + json("same_top", of.same_top());
}

// a line for each chunk, one for each range of positions, and last one for all that counts
static void print(const result & res) {
    for (size_t i = 0; i < res.running.size(); ++i) {
        LOG("{\"running\":{\"chunk\":%zu,%s,%s}}\n", i + 1, json("ppl", res.running[i].ppl()).c_str(),
            shared(res.running[i]).c_str());
    }
    for (size_t i = 0; i < res.blocks.size(); ++i) {
        LOG("{\"position\":{\"begin\":%d,\"end\":%d,\"tokens\":%zu,%s}}\n", res.blocks[i].first, res.blocks[i].second,
            (size_t) res.by_position[i].count(), shared(res.by_position[i]).c_str());
    }
    const kv_totals & of          = res.totals;
    const std::string estimates[] = {
        json("ppl", of.ppl()),           json("ppl_base", of.ppl_base()),
        json("ratio", of.ratio()),       json("difference", of.difference()),
        json("mean_dp", of.mean_dp()),   "\"correlation\":" + json(of.correlation()),
        json("mean", of.kld.estimate()), json("ln_ratio", of.ln_ratio()),
        json("rms_dp", of.rms_dp()),     json("same_top", of.same_top()),
    };
    std::string out;
    for (const auto & estimate : estimates) {
        out += estimate + ",";
    }
    out += quantiles("kld", res.kld, { 0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100 }) + ",";
    out += quantiles("dp", res.p_diff, { 0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100 });
    LOG("{\"divergence\":{\"chunks\":%zu,%s}}\n", res.running.size(), out.c_str());
}

int main(int argc, char ** argv) {
    std::setlocale(LC_NUMERIC, "C");

    common_params params;
    params.n_ctx   = 512;
    params.n_batch = 512;
    params.escape  = false;

    common_init();
    if (!common_params_parse(argc, argv, params, LLAMA_EXAMPLE_PERPLEXITY, print_usage)) {
        return 1;
    }
    if (const std::string trouble = trouble_with(params); !trouble.empty()) {
        LOG_ERR("%s: %s\n", __func__, trouble.c_str());
        return 1;
    }
    params.n_batch    = std::min(params.n_batch, params.n_ctx);
    params.n_ubatch   = std::min(params.n_ubatch, params.n_batch);
    params.n_parallel = 1;
    params.fit_params = false;  // which counts one context

    llama_backend_init();
    llama_numa_init(params.numa);

    common_params params_base = params;
    params_base.cache_type_k  = GGML_TYPE_F16;
    params_base.cache_type_v  = GGML_TYPE_F16;
    params_base.n_ubatch      = params.n_batch;

    const auto    init  = common_init_from_params(params_base);
    llama_model * model = init->model();
    if (model == nullptr || init->context() == nullptr) {
        LOG_ERR("%s: unable to load the model with an f16 cache\n", __func__);
        return 1;
    }
    if (const std::string trouble = trouble_with(model, init->context()); !trouble.empty()) {
        LOG_ERR("%s: %s\n", __func__, trouble.c_str());
        return 1;
    }
    if (params.n_ctx > llama_model_n_ctx_train(model)) {
        LOG_WRN("%s: model was trained on only %d context tokens (%d specified)\n", __func__,
                llama_model_n_ctx_train(model), params.n_ctx);
    }

    const std::vector<llama_token> tokens = common_tokenize(init->context(), params.prompt, true);
    if (tokens.size() < 2 * (size_t) params.n_ctx) {
        LOG_ERR("%s: you need at least %d tokens to evaluate perplexity with a context of %d\n", __func__,
                2 * params.n_ctx, params.n_ctx);
        LOG_ERR("%s: the data file you provided tokenizes to only %zu tokens\n", __func__, tokens.size());
        return 1;
    }
    const int n_chunks_all = (int) (tokens.size() / params.n_ctx);
    const int n_chunks     = params.n_chunks < 0 ? n_chunks_all : std::min(params.n_chunks, n_chunks_all);
    if (n_chunks < 1) {
        LOG_ERR("%s: there are no chunks to measure: --chunks\n", __func__);
        return 1;
    }

    // the second context, so that what the log tells last is about the cache that was asked for
    const llama_context_ptr cell(llama_init_from_model(model, common_context_params_to_llama(params)));
    if (!cell) {
        LOG_ERR("%s: failed to create the context of the cache\n", __func__);
        return 1;
    }
    LOG_INF("%s\n", common_params_get_system_info(params).c_str());

    result res;
    if (!measure(init->context(), cell.get(), params, tokens, n_chunks, res)) {
        return 1;
    }
    print(res);

    return 0;
}
