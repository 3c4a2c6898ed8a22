#pragma once

// Whether a device can keep a KV cache of given types, asked before the cache is allocated: a cache in the memory of a
// device that cannot write it aborts in SET_ROWS, and one that it cannot read is copied to the CPU for every token.

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include <cstdint>

struct llama_cparams;
struct llama_hparams;
struct llama_model;

enum class llama_kv_attention {
    flash,
    plain,
    indexer,  // the cache holds the keys of an indexer
    unknown,  // not decided yet: only writing is asked for
};

// What a layer does with its cache
struct llama_kv_use {
    ggml_type type_k;
    ggml_type type_v;

    int64_t n_embd_head_k;
    int64_t n_embd_head_v;
    int64_t n_head;  // of the queries
    int64_t n_head_kv;
    bool    v_in_k;  // MLA: V is a view of K
    bool    sinks;
    int64_t n_cells;

    float max_bias;  // ALiBi; 0: none
    float softcap;   // of the logits; 0: none

    llama_kv_attention attention;
};

enum class llama_kv_gap {
    none,
    write,
    read,
};

// The first thing that the device has no kernel for, at any number of tokens and of cells in use. Exported for its test.
LLAMA_API llama_kv_gap llama_kv_find_gap(ggml_backend_dev_t dev, const llama_kv_use & use);

// The device in whose memory a layer's cache of n_cells goes: the layer's own, or the CPU, which then writes it and attends.
// What a device can write but not read stays where upstream puts it, except for the turbo types. hparams: as the cache is told.
ggml_backend_dev_t llama_kv_device(const llama_model &   model,
                                   const llama_hparams & hparams,
                                   uint32_t              il,
                                   ggml_type             type_k,
                                   ggml_type             type_v,
                                   bool                  v_trans,
                                   uint32_t              n_cells);

// One warning on all layers whose device lacks a kernel for their cache: device, types, head sizes, what happens instead,
// and the cache of about the same size that the device can run. Nothing if nothing is lacking.
void llama_kv_device_check(const llama_model &   model,
                           const llama_cparams & cparams,
                           ggml_type             type_k,
                           ggml_type             type_v);

// Whether there are such types and their blocks fit the heads, else an error is logged. Turns on flash attention for a turbo
// K that leaves the choice open: it should not depend on what the automatic choice finds.
bool llama_kv_types_check(const llama_model & model, llama_context_params & params);
