#pragma once

// What the turbo series adds to the KV cache: the gate of upstream's activation rotation, and the turbo rotation
// that belongs to the turbo cache types. See ggml-turbo.h for the codec.

#include "ggml-cpp.h"
#include "ggml-turbo.h"
#include "ggml.h"
#include "llama-kv-calib.h"
#include "llama-kv-device.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

struct llama_hparams;

//
// Gate of upstream's rotation (n_rot_k, n_rot_v)
//
// Off on both sides unless asked for:
//   LLAMA_ATTN_ROT_K_OVERRIDE=1, LLAMA_ATTN_ROT_V_OVERRIDE=1  turn a side on, if its cache type is quantized and
//                                                             its head size is a multiple of 64
//   LLAMA_ATTN_ROT_DISABLE=1                                  locks both sides out
//   LLAMA_ATTN_ROT_K_NROT=n, LLAMA_ATTN_ROT_V_NROT=n          size of the rotation: a power of two >= 64 that
//                                                             divides the head size (0: upstream's choice)

struct llama_attn_rot_side {
    bool        on   = false;
    uint32_t    nrot = 0;  // 0: upstream's choice
    std::string reason;    // for the log
};

// Reads the environment. n_embd_head is 0 if the cache has no such side and negative if its layers differ.
// Throws std::runtime_error that names the variable if its value is not understood or the size does not fit.
llama_attn_rot_side llama_attn_rot_gate(char side, ggml_type type, int64_t n_embd_head);

// The size in force where upstream chose n_rot (0: none), and one log line on it. A size in spite of a gate that is
// off is one that an indexer requires.
uint32_t llama_attn_rot_size(char side, ggml_type type, const llama_attn_rot_side & gate, uint32_t n_rot);

//
// Turbo rotation
//

// R = H*D and the calibration before it, constant tensors in the memory of the cache that they belong to. A row x of K
// is stored as R*(x*mul + add) and a query as R*(q/mul). Empty where rows are stored as they come.
struct llama_turbo_rot {
    ggml_tensor * signs    = nullptr;  // D: one row as long as a head; null if mul and add have the signs in them
    ggml_tensor * hadamard = nullptr;  // H: as wide as the rotation, which divides a head
    ggml_tensor * mul      = nullptr;  // a head for each KV head
    ggml_tensor * add      = nullptr;
    ggml_tensor * factors =
        nullptr;  // of K's blocks, for ggml_turbo_set_rows; null where they are rounded to the nearest
    ggml_tensor * upstream = nullptr;  // upstream's rotation, in which rows come and go where it is on; not before mul

    int32_t observed = -1;             // the layer, where K and Q are measured

    int64_t width() const { return hadamard ? hadamard->ne[0] : 0; }
};

// The rotations of the rows of one layer
struct llama_kv_rot {
    llama_turbo_rot k;
    llama_turbo_rot v;

    bool q_turned = false;  // by llama_turbo_turn_q(), not by llama_turbo_query() any more

    llama_kv_rot of_turned_q() const {
        llama_kv_rot res = *this;
        res.q_turned     = true;
        return res;
    }
};

// The rotations of a layer in a cache. Who shows the rows of a turbo cache owes their rotation: if nobody has taken it when
// the rows are shown again, a graph was built that attends in two bases, and the process aborts. Several graphs are
// built before the first token is computed.
struct llama_kv_rot_layer {
    llama_kv_rot rot;
    mutable bool owed = false;

    void         show() const;
    llama_kv_rot take() const;
};

// The tensors of the rotations of a KV cache. They live in buffers of their own, because clearing a cache wipes its
// buffers.
class llama_turbo_rots {
  public:
    // of the rows of a layer: none of a type that needs no rotation, and none of an indexer's, whose keys do not reach the
    // attention. The first layer's are logged.
    llama_kv_rot get(const llama_hparams &      hparams,
                     uint32_t                   il,
                     ggml_type                  type_k,
                     ggml_type                  type_v,
                     ggml_backend_buffer_type_t buft);

    // The calibration of the context that is being created, in all layers that have a buffer. n_rot: of upstream's rotation
    // of K; returned.
    template <typename T> uint32_t calibrate(const llama_hparams & hparams, uint32_t n_rot, T & layers) {
        for (auto & layer : layers) {
            calibrate(hparams, n_rot, layer.il, layer.k, layer.rot.rot);
        }
        log_calibration(layers.size());
        return n_rot;
    }

    // hash of the calibration of these rows; 0: none
    uint64_t calibration() const { return hash; }

  private:
    // rows of floats, or of bytes
    struct constant_values {
        constant_values(std::string name, int64_t n_row, const std::vector<float> & data) :
            name(std::move(name)),
            type(GGML_TYPE_F32),
            n_row(n_row),
            size((int64_t) (data.size() * sizeof(float))),
            data(data.data()) {}

        constant_values(std::string name, const std::vector<ggml_turbo_factor> & data) :
            name(std::move(name)),
            type(GGML_TYPE_I8),
            n_row(sizeof(ggml_turbo_factor)),
            size((int64_t) (data.size() * sizeof(ggml_turbo_factor))),
            data(data.data()) {}

        std::string  name;
        ggml_type    type;
        int64_t      n_row;
        int64_t      size;
        const void * data;
    };

    std::vector<ggml_tensor *> constants(ggml_backend_buffer_type_t           buft,
                                         bool                                 no_alloc,
                                         const std::vector<constant_values> & values);

    llama_turbo_rot make(ggml_backend_buffer_type_t buft, int64_t n_embd_head, int64_t width, bool no_alloc);

    void calibrate(const llama_hparams & hparams,
                   uint32_t              n_rot,
                   uint32_t              il,
                   const ggml_tensor *   rows,
                   llama_kv_rot &        rots);

    void log_calibration(size_t n_layers) const;

    bool     logged    = false;
    uint64_t hash      = 0;
    size_t   n_factors = 0;  // layers that have factors

    std::map<std::tuple<ggml_backend_buffer_type_t, int64_t, int64_t>, llama_turbo_rot> rots;

    std::map<std::pair<ggml_backend_buffer_type_t, int64_t>, ggml_tensor *> upstreams;

    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> ctxs_bufs;
};

// Rows as they are stored, or back; an empty rotation leaves them as they are. Rows may be heads, prefixes of heads, or
// several heads beside each other. What attention makes of the rows is brought back like them.
ggml_tensor * llama_turbo_apply(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot);
ggml_tensor * llama_turbo_undo(ggml_context * ctx, ggml_tensor * cur, const llama_turbo_rot & rot);

// Stores rows of K that were rotated like that, as ggml_set_rows
ggml_tensor * llama_turbo_store(ggml_context *          ctx,
                                ggml_tensor *           cache,
                                ggml_tensor *           rows,
                                ggml_tensor *           idxs,
                                const llama_turbo_rot & rot);

// Queries (heads, tokens) for rows that are stored like that
ggml_tensor * llama_turbo_query(ggml_context * ctx, ggml_tensor * cur, const llama_kv_rot & rot);

// Queries before K and V of their tokens are stored, so that the small operations on all three follow each other
ggml_tensor * llama_turbo_turn_q(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * cur, const llama_kv_rot & rot);

// The rotation of rows of two caches beside each other; aborts if they differ
llama_kv_rot llama_kv_rot_of_both(const llama_kv_rot & a, const llama_kv_rot & b);

// Aborts if k or v are rows of a turbo cache that come without their rotation: attention would be computed in two bases
void llama_turbo_require(const ggml_tensor * k, const ggml_tensor * v, const llama_kv_rot & rot);

// Heads of a quantized cache with RoPE applied to all but the first n_nope values of each: decoded, every rotation undone
// (rot is upstream's, or null), and rotated again. The caller stores the result.
ggml_tensor * llama_turbo_rope_rows(ggml_context *                                      ctx,
                                    ggml_tensor *                                       rows,
                                    ggml_tensor *                                       rot,
                                    const llama_turbo_rot &                             turbo,
                                    int64_t                                             n_nope,
                                    const std::function<ggml_tensor *(ggml_tensor *)> & rope);

// Upper bound on the graph nodes that the rotations add to a layer: upstream's and the turbo rotation, each on Q, K, V
// and the attention output, each a copy or a product with the signs, a view of them, a reshape, a product and a reshape;
// and the calibration of Q, K and the output: two views, a product and a sum, between two of upstream's rotations
#define LLAMA_ROT_MAX_NODES_PER_LAYER (2 * 4 * 6 + 3 * (4 + 2 * 4))
