#include "llama-kv-calib-file.h"

#include "ggml-cpp.h"
#include "gguf.h"
#include "llama-hparams.h"
#include "llama-impl.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <stdexcept>
#include <utility>

namespace fs = std::filesystem;

void llama_kv_hash::add(const void * data, size_t size) {
    const uint8_t * bytes = (const uint8_t *) data;
    for (size_t i = 0; i < size; ++i) {
        value = (value ^ bytes[i]) * 0x100000001b3ull;
    }
}

std::string llama_kv_hash::str() const {
    return format("%016llx", (unsigned long long) value);
}

//
// calibration
//

static const char * const KEY_PREFIX   = "kv_calibration.";
static const char * const KEY_VERSION  = "kv_calibration.version";
static const char * const KEY_MODEL    = "kv_calibration.model";
static const char * const KEY_TEXT     = "kv_calibration.text";
static const char * const KEY_N_TOKENS = "kv_calibration.n_tokens";
static const char * const KEY_LAYERS   = "kv_calibration.layers";

static const uint32_t FILE_VERSION = 1;

static std::string key_of(uint32_t il, const char * name) {
    return format("kv_calibration.%u.%s", il, name);
}

// the arrays of a layer, by name
template <typename T> static auto arrays_of(T & layer) {
    return std::vector<std::pair<const char *, decltype(&layer.k_mean)>>{
        { "k_mean",     &layer.k_mean     },
        { "k_sq",       &layer.k_sq       },
        { "k_cross",    &layer.k_cross    },
        { "q_sq",       &layer.q_sq       },
        { "q_cross",    &layer.q_cross    },
        { "k_first",    &layer.k_first    },
        { "k_first_sq", &layer.k_first_sq },
    };
}

static int64_t require_key(const gguf_context * file, const std::string & key, gguf_type type) {
    const int64_t id = gguf_find_key(file, key.c_str());
    if (id < 0 || gguf_get_kv_type(file, id) != type) {
        throw std::runtime_error(format("it has no %s of the right type", key.c_str()));
    }

    return id;
}

static std::vector<float> read_array(const gguf_context * file, const std::string & key, size_t n, bool signed_values) {
    const int64_t id = require_key(file, key, GGUF_TYPE_ARRAY);
    if (gguf_get_arr_type(file, id) != GGUF_TYPE_FLOAT32 || gguf_get_arr_n(file, id) != n) {
        throw std::runtime_error(format("%s is not %zu values", key.c_str(), n));
    }

    const float *      data = (const float *) gguf_get_arr_data(file, id);
    std::vector<float> res(data, data + n);
    for (const float x : res) {
        if (!std::isfinite(x) || std::fabs(x) > 1e12f || (!signed_values && x < 0.0f)) {
            throw std::runtime_error(format("%s holds a value that cannot be", key.c_str()));
        }
    }

    return res;
}

// of a file that has them
static std::vector<int16_t> read_correlations(const gguf_context * file, const std::string & key, size_t n) {
    if (gguf_find_key(file, key.c_str()) < 0) {
        return {};
    }
    const int64_t id = require_key(file, key, GGUF_TYPE_ARRAY);
    if (gguf_get_arr_type(file, id) != GGUF_TYPE_INT16 || gguf_get_arr_n(file, id) != n) {
        throw std::runtime_error(format("%s is not %zu correlations", key.c_str(), n));
    }

    const int16_t *      data = (const int16_t *) gguf_get_arr_data(file, id);
    std::vector<int16_t> res(data, data + n);
    for (const int16_t x : res) {
        if (std::abs((float) x) > LLAMA_KV_CORR_ONE) {
            throw std::runtime_error(format("%s holds a value that cannot be", key.c_str()));
        }
    }

    return res;
}

static gguf_context_ptr open_file(const std::string & path) {
    std::error_code ec;
    if (!fs::is_regular_file(fs::u8path(path), ec)) {
        throw std::runtime_error(format("%s cannot be used: it is not a file", path.c_str()));
    }
    gguf_context_ptr file(gguf_init_from_file(path.c_str(), { /*.no_alloc =*/true, /*.ctx =*/nullptr }));
    if (!file) {
        throw std::runtime_error(format("%s cannot be used: it is not a GGUF file, or damaged", path.c_str()));
    }

    return file;
}

static llama_kv_calibration read_file(const gguf_context * file) {
    const uint32_t version = gguf_get_val_u32(file, require_key(file, KEY_VERSION, GGUF_TYPE_UINT32));
    if (version != FILE_VERSION) {
        throw std::runtime_error(format("it is of version %u, this program reads %u", version, FILE_VERSION));
    }

    llama_kv_calibration res;
    res.model    = gguf_get_val_str(file, require_key(file, KEY_MODEL, GGUF_TYPE_STRING));
    res.text     = gguf_get_val_str(file, require_key(file, KEY_TEXT, GGUF_TYPE_STRING));
    res.n_tokens = gguf_get_val_u32(file, require_key(file, KEY_N_TOKENS, GGUF_TYPE_UINT32));

    const int64_t layers = require_key(file, KEY_LAYERS, GGUF_TYPE_ARRAY);
    const size_t  n      = gguf_get_arr_n(file, layers);
    if (gguf_get_arr_type(file, layers) != GGUF_TYPE_UINT32 || n == 0 || n > LLAMA_MAX_LAYERS) {
        throw std::runtime_error(format("%s is not a list of layers", KEY_LAYERS));
    }
    for (size_t i = 0; i < n; ++i) {
        const uint32_t il = ((const uint32_t *) gguf_get_arr_data(file, layers))[i];
        if (il >= LLAMA_MAX_LAYERS || res.layers.count(il) > 0) {
            throw std::runtime_error(format("%s is not a list of layers", KEY_LAYERS));
        }
        auto &     layer  = res.layers[il];
        const auto number = [&](const char * name) {
            const uint32_t value = gguf_get_val_u32(file, require_key(file, key_of(il, name), GGUF_TYPE_UINT32));
            if (value == 0 || value > 65536) {
                throw std::runtime_error(format("%s is %u", key_of(il, name).c_str(), value));
            }
            return value;
        };
        layer.n_head_kv   = number("n_head_kv");
        layer.n_embd_head = number("n_embd_head");
        for (auto & [name, values] : arrays_of(layer)) {
            *values = read_array(file, key_of(il, name), (size_t) layer.n_embd_head * layer.n_head_kv,
                                 std::strstr(name, "_sq") == nullptr);
        }
        if (layer.n_embd_head <= LLAMA_KV_CORR_MAX) {
            layer.q_corr = read_correlations(file, key_of(il, "q_corr"), layer.n_corr() * layer.n_head_kv);
        }
    }

    return res;
}

llama_kv_calibration llama_kv_calibration_read(const std::string & path) {
    const auto file = open_file(path);
    try {
        return read_file(file.get());
    } catch (const std::exception & err) {
        throw std::runtime_error(format("%s cannot be used: %s", path.c_str(), err.what()));
    }
}

static void set_keys(gguf_context * file, const llama_kv_calibration & calibration) {
    gguf_set_val_u32(file, KEY_VERSION, FILE_VERSION);
    gguf_set_val_str(file, KEY_MODEL, calibration.model.c_str());
    gguf_set_val_str(file, KEY_TEXT, calibration.text.c_str());
    gguf_set_val_u32(file, KEY_N_TOKENS, calibration.n_tokens);

    std::vector<uint32_t> layers;
    for (const auto & [il, layer] : calibration.layers) {
        layers.push_back(il);
        gguf_set_val_u32(file, key_of(il, "n_head_kv").c_str(), layer.n_head_kv);
        gguf_set_val_u32(file, key_of(il, "n_embd_head").c_str(), layer.n_embd_head);
        for (const auto & [name, values] : arrays_of(layer)) {
            gguf_set_arr_data(file, key_of(il, name).c_str(), GGUF_TYPE_FLOAT32, values->data(), values->size());
        }
        if (!layer.q_corr.empty()) {
            gguf_set_arr_data(file, key_of(il, "q_corr").c_str(), GGUF_TYPE_INT16, layer.q_corr.data(),
                              layer.q_corr.size());
        }
    }
    gguf_set_arr_data(file, KEY_LAYERS, GGUF_TYPE_UINT32, layers.data(), layers.size());
}

// beside it, under a name of this write's own, and then in its place
static void write_whole(const std::string & path, const std::function<bool(FILE *)> & write) {
    std::random_device random;
    const auto         part = format("%s.%08x%08x.part", path.c_str(), (unsigned) random(), (unsigned) random());
    std::error_code    ec;

    FILE * file = ggml_fopen(part.c_str(), "wb");
    bool   done = file && write(file);
    done        = file && fclose(file) == 0 && done;
    if (done) {
        fs::rename(fs::u8path(part), fs::u8path(path), ec);
    }
    if (!done || ec) {
        std::error_code ignored;
        fs::remove(fs::u8path(part), ignored);
        throw std::runtime_error(format("%s cannot be written", path.c_str()));
    }
}

void llama_kv_calibration_write(const llama_kv_calibration & calibration, const std::string & path) {
    const gguf_context_ptr file(gguf_init_empty());
    gguf_set_val_str(file.get(), "general.type", "kv_calibration");
    set_keys(file.get(), calibration);

    write_whole(path, [&](FILE * out) { return gguf_write_to_file_ptr(file.get(), out, /*only_meta =*/true); });
}

//
// file of a model
//

struct llama_kv_model_file::content {
    std::string                            path;
    gguf_context_ptr                       header;
    std::unique_ptr<FILE, int (*)(FILE *)> bytes;

    void read(uint64_t at, size_t n, uint8_t * out) const {
#if defined(_WIN32)
        const bool found = _fseeki64(bytes.get(), (int64_t) at, SEEK_SET) == 0;
#else
        const bool found = fseeko(bytes.get(), (off_t) at, SEEK_SET) == 0;
#endif
        if (!found || fread(out, 1, n, bytes.get()) != n) {
            throw std::runtime_error(format("%s is shorter than its header says", path.c_str()));
        }
    }
};

llama_kv_model_file::llama_kv_model_file(const std::string & path) {
    auto header = open_file(path);
    file.reset(new content{
        path, std::move(header), { ggml_fopen(path.c_str(), "rb"), fclose }
    });
    if (!file->bytes) {
        throw std::runtime_error(format("%s cannot be opened", path.c_str()));
    }
}

llama_kv_model_file::~llama_kv_model_file() = default;

bool llama_kv_model_file::embeds() const {
    return gguf_find_key(file->header.get(), KEY_VERSION) >= 0;
}

std::string llama_kv_model_file::fingerprint() const {
    const auto *         header = file->header.get();
    llama_kv_hash        hash;
    std::vector<uint8_t> buf(4096);
    for (int64_t i = 0; i < gguf_get_n_tensors(header); ++i) {
        const std::string name = gguf_get_tensor_name(header, i);
        const size_t      n    = std::min(buf.size(), gguf_get_tensor_size(header, i));

        file->read(gguf_get_data_offset(header) + gguf_get_tensor_offset(header, i), n, buf.data());
        hash.add(name.data(), name.size());
        hash.add(buf.data(), n);
    }

    return hash.str();
}

void llama_kv_model_file::copy_with(const llama_kv_calibration & calibration, const std::string & path) const {
    std::error_code ec;
    if (fs::equivalent(fs::u8path(path), fs::u8path(file->path), ec)) {
        throw std::runtime_error(format("%s is the model itself", path.c_str()));
    }
    if (calibration.model != fingerprint()) {
        throw std::runtime_error(format("the calibration is of another model than %s", file->path.c_str()));
    }

    const auto *           source = file->header.get();
    const gguf_context_ptr copy   = open_file(file->path);
    for (int64_t i = gguf_get_n_kv(source) - 1; i >= 0; --i) {
        const char * key = gguf_get_key(source, i);
        if (std::strncmp(key, KEY_PREFIX, std::strlen(KEY_PREFIX)) == 0) {
            gguf_remove_key(copy.get(), key);
        }
    }
    set_keys(copy.get(), calibration);

    const uint64_t end = fs::file_size(fs::u8path(file->path));
    write_whole(path, [&](FILE * out) {
        bool                 done = gguf_write_to_file_ptr(copy.get(), out, /*only_meta =*/true);
        std::vector<uint8_t> buf(1 << 20);
        for (uint64_t at = gguf_get_data_offset(source); done && at < end; at += buf.size()) {
            const size_t n = (size_t) std::min<uint64_t>(buf.size(), end - at);
            file->read(at, n, buf.data());
            done = fwrite(buf.data(), 1, n, out) == n;
        }
        return done;
    });
}
