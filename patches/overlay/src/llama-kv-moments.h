#pragma once

// What a calibration is made of: moments of K and Q, for each layer and KV head, turned back to position 0 so that they
// hold for every context. How they are measured, and turned into means and scales.

#include "llama-kv-calibration.h"
#include "llama.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

struct llama_cparams;
struct llama_model;

// Exported functions are for their test.

// Heads of more values have no correlations: what they take grows with the square
constexpr uint32_t LLAMA_KV_CORR_MAX = 256;

constexpr float LLAMA_KV_CORR_ONE = 32767.0f;

// Of one layer; each vector but q_corr has a head of values for each KV head
struct llama_kv_moments {
    uint32_t n_embd_head = 0;
    uint32_t n_head_kv   = 0;

    std::vector<float> k_mean;
    std::vector<float> k_sq;        // mean squares
    std::vector<float> k_cross;     // mean products of the two values that RoPE turns into each other; 0 without RoPE
    std::vector<float> q_sq;        // over all queries that read the head
    std::vector<float> q_cross;
    std::vector<float> k_first;     // the first key of a sequence, which is nearly the same in each
    std::vector<float> k_first_sq;  // mean squares of first keys

    // of values i > j of Q, row by row, n_corr() for each KV head: the mean product by the root of both mean squares, in
    // parts of LLAMA_KV_CORR_ONE; empty if nobody measured them
    std::vector<int16_t> q_corr;

    size_t n_corr() const { return (size_t) n_embd_head * (n_embd_head - 1) / 2; }
};

struct llama_kv_calibration {
    std::map<uint32_t, llama_kv_moments> layers;

    std::string model;         // fingerprint of the model's file
    std::string text;          // hash of the tokens
    uint32_t    n_tokens = 0;  // measured
};

// How the K rows of a layer are stored: (K - mean) * scale; n_embd_head values for each KV head
struct llama_kv_affine {
    uint32_t n_embd_head = 0;
    uint32_t n_head_kv   = 0;

    std::vector<float> mean;
    std::vector<float> scale;

    // the first key of a sequence, stored like that but not quantized; 0 in a head where it is not the same in each
    std::vector<float> first;

    // second moment of the queries that read a head, divided by scale: n_embd_head^2 values for each KV head; may be empty
    std::vector<float> q_moment;
};

struct llama_kv_affines {
    std::map<uint32_t, llama_kv_affine> layers;

    uint64_t hash =
        0;  // of what rows mean: not of q_moment, which says how they are rounded; not 0 if there is a layer
};

using llama_kv_describe = std::function<void(const llama_kv_calibration_head &)>;

// Means and scales for contexts of cparams.n_ctx_seq positions, evenly in the logarithm of the position. Where attention
// has sinks or caps its logits the mean is 0. Throws std::runtime_error if a layer is not as the model's. describe, which
// may be empty, is told of each head.
LLAMA_API llama_kv_affines llama_kv_affines_at(const llama_model &          model,
                                               const llama_cparams &        cparams,
                                               const llama_kv_calibration & calibration,
                                               const llama_kv_describe &    describe = nullptr);

// What a calibration that is measured on these tokens in one sequence has as its text
std::string llama_kv_text_hash(const std::vector<llama_token> & tokens);

// Decodes the tokens in sequences of n_ctx, the first of each left out of the moments. params: of the contexts to serve.
// Throws std::runtime_error if the model cannot be measured or progress returns false.
llama_kv_calibration llama_kv_calibration_measure(llama_model &                      model,
                                                  llama_context_params               params,
                                                  const std::vector<llama_token> &   tokens,
                                                  uint32_t                           n_ctx,
                                                  const std::function<bool(float)> & progress);
