#pragma once

// Whether a device can keep a KV cache of given types, asked before the cache is allocated: a cache in the memory of a
// device that cannot write it aborts in SET_ROWS, and one that it cannot attend to is copied to the CPU for every token.

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>

struct llama_cparams;
struct llama_hparams;
struct llama_model;

enum class llama_kv_attention {
    flash,
    plain,
    unknown,  // not decided yet, or not attention: only writing is asked for
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

    float max_bias;  // ALiBi; 0: none
    float softcap;   // of the logits; 0: none

    llama_kv_attention attention;
};

llama_kv_use llama_kv_use_of(const llama_hparams & hparams,
                             uint32_t              il,
                             ggml_type             type_k,
                             ggml_type             type_v,
                             llama_kv_attention    attention);

enum class llama_kv_gap {
    none,
    write,
    attend,
};

// The first thing that the device has no kernel for
llama_kv_gap llama_kv_find_gap(ggml_backend_dev_t dev, const llama_kv_use & use);

// Whether the cache has to stay in CPU memory, where the CPU writes it and attends. What a device can write but not attend
// to stays where upstream puts it, except for the turbo types.
bool llama_kv_stays_on_cpu(ggml_backend_dev_t dev, const llama_kv_use & use);

// One warning on all layers whose device lacks a kernel for their cache: device, types, head sizes, what happens instead,
// and the cache of about the same size that the device can run. Nothing if nothing is lacking.
void llama_kv_device_check(const llama_model &   model,
                           const llama_cparams & cparams,
                           ggml_type             type_k,
                           ggml_type             type_v);
