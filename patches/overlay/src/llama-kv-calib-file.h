#pragma once

// Calibrations in files: one of their own, or the file of a model

#include "llama-kv-moments.h"

#include <cstdint>
#include <memory>
#include <string>

// FNV-1a of 64 bits
struct llama_kv_hash {
    uint64_t value = 0xcbf29ce484222325ull;

    void add(const void * data, size_t size);

    std::string str() const;  // 16 hexadecimal digits
};

// A file, or a model that embeds one. Throws std::runtime_error that names the path and what is wrong in it.
LLAMA_API llama_kv_calibration llama_kv_calibration_read(const std::string & path);

// Whole or not at all, also if several programs write it at once. Throws std::runtime_error.
LLAMA_API void llama_kv_calibration_write(const llama_kv_calibration & calibration, const std::string & path);

// The file of a model. What it has is as long as the object lives; all of it throws std::runtime_error.
class llama_kv_model_file {
  public:
    explicit llama_kv_model_file(const std::string & path);
    ~llama_kv_model_file();

    // of names and a part of each tensor: the same for a copy with other metadata; 16 hexadecimal digits
    std::string fingerprint() const;

    bool embeds() const;  // a calibration

    // Writes a copy that embeds the calibration instead of what this one embeds
    void copy_with(const llama_kv_calibration & calibration, const std::string & path) const;

  private:
    struct content;
    std::unique_ptr<const content> file;
};
