#pragma once

// What the turbo series adds to the KV cache: the gate of upstream's activation rotation, and the turbo rotation
// that belongs to the turbo cache types. See ggml-turbo.h for the codec.

#include "ggml-cpp.h"
#include "ggml.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

//
// Gate of upstream's rotation (attn_rot_k, attn_rot_v)
//
// Off on both sides unless asked for:
//   LLAMA_ATTN_ROT_K_OVERRIDE=1, LLAMA_ATTN_ROT_V_OVERRIDE=1  turn a side on, if its cache type is quantized and
//                                                             its head size is a multiple of 64
//   LLAMA_ATTN_ROT_DISABLE=1                                  locks both sides out
//   LLAMA_ATTN_ROT_K_NROT=n, LLAMA_ATTN_ROT_V_NROT=n          size of the rotation: a power of two >= 64 that
//                                                             divides the head size (0: upstream's choice)

struct llama_attn_rot_side {
    bool        on   = false;
    int64_t     nrot = 0;  // 0: upstream's choice
    std::string reason;    // for the log
};

// Reads the environment. n_embd_head is 0 if the cache has no such side and negative if its layers differ.
// Throws std::runtime_error that names the variable if its value is not understood or the size does not fit.
llama_attn_rot_side llama_attn_rot_gate(char side, ggml_type type, int64_t n_embd_head);

// One log line on what is in force and why; nrot is the size that the graph will use
void llama_attn_rot_log(char side, ggml_type type, const llama_attn_rot_side & rot, int64_t nrot);

//
// Turbo rotation
//

// Constant matrices of the turbo rotation, one pair for each width and buffer type that a KV cache needs. They live
// in buffers of their own, because clearing a cache wipes its buffers.
class llama_turbo_rot {
  public:
    struct pair {
        ggml_tensor * fwd = nullptr;  // ggml_mul_mat(fwd, x) rotates rows of n values
        ggml_tensor * inv = nullptr;  // and this undoes it
    };

    pair get(ggml_backend_buffer_type_t buft, int64_t n, bool no_alloc);

  private:
    std::map<std::pair<ggml_backend_buffer_type_t, int64_t>, pair> pairs;

    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> ctxs_bufs;
};

// Rotate cur, or undo it, in groups of as many values as the rotation is wide; an empty rotation leaves cur as it is
ggml_tensor * llama_turbo_apply(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot::pair & rot);
ggml_tensor * llama_turbo_undo(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot::pair & rot);

// A view of cache cells carries the rotation of its rows, so that whoever attends to them can find it
ggml_tensor * llama_turbo_tag(ggml_tensor * view, const llama_turbo_rot::pair & rot);

// The rotation of the cache that t is a view, slice, copy or concatenation of; empty if it is stored as it is
llama_turbo_rot::pair llama_turbo_find(const ggml_tensor * t);

// One log line on what the cache of that side does; rot is null if its rows are stored as they come
void llama_turbo_rot_log(char side, ggml_type type, const ggml_tensor * rot);

// Upper bound on the graph nodes that the rotations add to a layer: upstream's and the turbo rotation, each on Q, K, V
// and the attention output, each a copy, a reshape, a product and a reshape, and a view to take the result from
#define LLAMA_ROT_MAX_NODES_PER_LAYER (2 * 4 * 5)
