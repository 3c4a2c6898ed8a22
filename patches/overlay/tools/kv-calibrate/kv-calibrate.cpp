// Measures the calibration of a model's KV cache on a text, tells what it gives, and embeds it in a copy of the model.

#include "build-info.h"
#include "common.h"
#include "llama-cpp.h"
#include "llama-kv-calibration.h"
#include "llama.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

static void usage(FILE * out) {
    fprintf(out,
            "llama-kv-calibrate -m MODEL -f TEXT -o CALIBRATION [-c N] [--chunks N] [--stats JSON]\n"
            "llama-kv-calibrate -m MODEL --show CALIBRATION [-c N] [--stats JSON]\n"
            "llama-kv-calibrate -m MODEL --embed CALIBRATION -o COPY\n"
            "\n"
            "  -f TEXT       measured in sequences from its beginning\n"
            "  -c N          tokens of a sequence, positions to tell of (default: 512)\n"
            "  --chunks N    sequences (default: 8; -1: all)\n"
            "  --stats JSON  what the calibration makes of each head is written there\n"
            "  -t N          threads\n"
            "  -ngl N        layers on the device (default: all)\n"
            "  --version     what this is\n");
}

struct options {
    std::string model, text, out, show, embed, stats;
    int         n_ctx        = 512;
    int         n_chunks     = 8;
    int         n_threads    = 0;
    int         n_gpu_layers = -1;
};

static int number_of(const std::string & word, const char * value, int least) {
    char *     end = nullptr;
    const long res = strtol(value, &end, 10);
    if (*value == '\0' || *end != '\0' || res < least || res > 1 << 24) {
        fprintf(stderr, "error: %s %s is not a number of at least %d\n", word.c_str(), value, least);
        exit(1);
    }

    return (int) res;
}

static options options_of(int argc, char ** argv) {
    options                                    res;
    const std::map<std::string, std::string *> texts = {
        { "-m",      &res.model },
        { "-f",      &res.text  },
        { "-o",      &res.out   },
        { "--show",  &res.show  },
        { "--embed", &res.embed },
        { "--stats", &res.stats },
    };
    const std::map<std::string, std::pair<int *, int>> numbers = {
        { "-c",       { &res.n_ctx, 2 }         },
        { "--chunks", { &res.n_chunks, -1 }     },
        { "-t",       { &res.n_threads, 1 }     },
        { "-ngl",     { &res.n_gpu_layers, -1 } },
    };
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "-h" || word == "--help") {
            usage(stdout);
            exit(0);
        }
        if (word == "--version") {
            llama_print_build_info(llama_version());
            exit(0);
        }
        const auto text   = texts.find(word);
        const auto number = numbers.find(word);
        if ((text == texts.end() && number == numbers.end()) || i + 1 == argc) {
            fprintf(stderr, "error: %s is not understood\n\n", word.c_str());
            usage(stderr);
            exit(1);
        }
        if (text != texts.end()) {
            *text->second = argv[++i];
        } else {
            *number->second.first = number_of(word, argv[++i], number->second.second);
        }
    }
    const bool measures = !res.text.empty();
    if (res.model.empty() || (int) measures + (int) !res.show.empty() + (int) !res.embed.empty() != 1 ||
        (res.show.empty() && res.out.empty())) {
        fprintf(stderr, "error: what is to be done is not said\n\n");
        usage(stderr);
        exit(1);
    }

    return res;
}

static bool measure(llama_model * model, llama_context_params params, const options & opts) {
    std::ifstream     in(opts.text, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    if (!in.is_open() || text.empty()) {
        fprintf(stderr, "error: %s cannot be read, or is empty\n", opts.text.c_str());
        return false;
    }

    auto         tokens = common_tokenize(llama_model_get_vocab(model), text, true, false);
    const size_t n_all  = tokens.size() / opts.n_ctx;
    const size_t n      = opts.n_chunks < 0 ? n_all : std::min<size_t>(n_all, opts.n_chunks);
    if (n == 0) {
        fprintf(stderr, "error: %s has %zu tokens, a sequence %d\n", opts.text.c_str(), tokens.size(), opts.n_ctx);
        return false;
    }
    tokens.resize(n * opts.n_ctx);

    size_t     n_seqs   = n;
    const auto progress = [](float done, void * user_data) {
        const auto n_seqs = (double) *(const size_t *) user_data;
        printf("sequence %.0f/%.0f\n", done * n_seqs, n_seqs);
        fflush(stdout);
        return true;
    };

    return llama_kv_calibration_create(model, params, tokens.data(), tokens.size(), opts.n_ctx, opts.out.c_str(),
                                       progress, &n_seqs);
}

// of a layer, its KV heads after each other
struct layer_stats {
    uint32_t           n_values = 0;
    std::vector<float> gain, before, after;
};

static std::string numbers_of(const std::vector<float> & values) {
    std::string res;
    char        buf[32];
    for (const float value : values) {
        snprintf(buf, sizeof(buf), "%s%.6g", res.empty() ? "" : ",", value);
        res += buf;
    }

    return "[" + res + "]";
}

static bool write_stats(llama_model *        model,
                        llama_context_params params,
                        const std::string &  path,
                        const options &      opts) {
    char     model_hash[17];
    char     text_hash[17];
    uint32_t n_tokens = 0;

    std::map<uint32_t, layer_stats> layers;

    const auto add = [](const llama_kv_calibration_head * head, void * user_data) {
        layer_stats & layer = (*(std::map<uint32_t, layer_stats> *) user_data)[head->layer];
        layer.n_values      = head->n_values;
        layer.gain.push_back(head->gain);
        layer.before.insert(layer.before.end(), head->before, head->before + head->n_values);
        layer.after.insert(layer.after.end(), head->after, head->after + head->n_values);
    };
    params.n_ctx = opts.n_ctx;
    if (!llama_kv_calibration_origin(path.c_str(), model_hash, text_hash, &n_tokens) ||
        !llama_kv_calibration_describe(model, params, path.c_str(), add, &layers)) {
        return false;
    }

    std::ofstream out(opts.stats);
    out << "{\"version\":1,\"model\":\"" << model_hash << "\",\"text\":\"" << text_hash
        << "\",\"n_tokens\":" << n_tokens << ",\"n_positions\":" << opts.n_ctx << ",\"layers\":[";
    const char * comma = "\n";
    for (const auto & [il, layer] : layers) {
        out << comma << "{\"layer\":" << il << ",\"n_head_kv\":" << layer.gain.size()
            << ",\"n_embd_head\":" << layer.n_values << ",\n \"k\":{\"gain\":" << numbers_of(layer.gain)
            << ",\n  \"before\":" << numbers_of(layer.before) << ",\n  \"after\":" << numbers_of(layer.after) << "}}";
        comma = ",\n";
    }
    out << "\n]}\n";
    out.close();
    if (!out) {
        fprintf(stderr, "error: %s cannot be written\n", opts.stats.c_str());
    }

    return (bool) out;
}

int main(int argc, char ** argv) {
    const options opts = options_of(argc, argv);
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN) {
                fputs(text, stderr);
            }
        },
        nullptr);
    if (!opts.embed.empty()) {
        return llama_kv_calibration_embed(opts.model.c_str(), opts.embed.c_str(), opts.out.c_str()) ? 0 : 1;
    }

    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers       = opts.n_gpu_layers;
    const llama_model_ptr model(llama_model_load_from_file(opts.model.c_str(), model_params));
    if (!model) {
        return 1;
    }

    llama_context_params params = llama_context_default_params();
    params.n_threads            = opts.n_threads > 0 ? opts.n_threads : (int) common_cpu_get_num_math();
    params.n_threads_batch      = params.n_threads;

    const std::string path = opts.show.empty() ? opts.out : opts.show;
    const bool        done = (!opts.show.empty() || measure(model.get(), params, opts)) &&
                             (opts.stats.empty() || write_stats(model.get(), params, path, opts));

    return done ? 0 : 1;
}
