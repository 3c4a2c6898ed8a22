#pragma once

// Which calibration the KV cache of a context gets: see include/llama-kv-calibration.h and llama-kv-moments.h.

#include "ggml.h"

#include <cstdint>
#include <memory>
#include <string>

struct llama_context_params;
struct llama_cparams;
struct llama_kv_affine;
struct llama_kv_calibration;
struct llama_kv_affines;
struct llama_model;

// Names of tensors in the graphs of a context that measures: this, 'k' or 'q', '-' and the layer
#define LLAMA_KV_OBSERVED "kv_observed_"

// What a model keeps of it
struct llama_kv_calib {
    std::string path;                                         // of the model's file; empty if it came otherwise

    std::shared_ptr<const llama_kv_calibration> calibration;  // null: K is stored as it comes
    std::string                                 source;       // where that comes from, for the log
    std::string                                 how;          // what was asked for then

    bool fixed = false;  // set by a test: stays whatever is asked for, but for "off"
};

// Finds the calibration for the next context of this model, measures it if need be. Returns false after logging an error.
bool llama_kv_calib_find(llama_model & model, const llama_context_params & params);

// While a context's memory is created, its caches take their values from here. One log line.
class llama_kv_calib_scope {
  public:
    llama_kv_calib_scope(const llama_model & model, const llama_cparams & cparams, ggml_type type_k);

    llama_kv_calib_scope(const llama_kv_calib_scope &)             = delete;
    llama_kv_calib_scope & operator=(const llama_kv_calib_scope &) = delete;

    ~llama_kv_calib_scope();

  private:
    std::unique_ptr<llama_kv_affines> affines;
};

// What a scope holds, for this thread
void llama_kv_calib_use(const llama_kv_affines * affines);

// Of the scope of this thread: the values of a layer, or null; whether K and Q are to be measured
const llama_kv_affine * llama_kv_calib_layer(uint32_t il);
uint64_t                llama_kv_calib_hash();
bool                    llama_kv_calib_observed();

// Contexts that this thread creates while such an object lives are observed, and not calibrated
class llama_kv_observing {
  public:
    llama_kv_observing();
    ~llama_kv_observing();
};
