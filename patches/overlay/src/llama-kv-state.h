#pragma once

// What the turbo series adds to saved states: the turbo rotation beside upstream's, and restores that leave nothing
// behind when they fail.

#include "llama-io.h"
#include "llama-turbo.h"
#include "llama.h"

#include <cstddef>
#include <cstdint>
#include <vector>

struct llama_file;
struct llama_memory_i;

// What says how the rows of a side of a KV cache are rotated, in the 32 bits where upstream writes n_rot_k or n_rot_v:
//   bits  0-15  upstream's rotation, as upstream writes it
//   bits 16-23  widths of the turbo rotation that occur, each divided by 64, or'ed
//   bits 24-30  GGML_TURBO_ROT_REVISION of a turbo type
//   bit  31     K is calibrated: the 64-bit hash of its means and scales follows what upstream writes of V
// All but the first are 0 for upstream's cache types without calibration, whose states are therefore upstream's.
#define LLAMA_KV_STATE_ROT_UPSTREAM 0x0000ffffu
#define LLAMA_KV_STATE_ROT_TURBO    0x7fff0000u
#define LLAMA_KV_STATE_CALIBRATED   0x80000000u

// The part of the series in it: 0 for any type of upstream without calibration
uint32_t llama_kv_state_turbo(ggml_type type, const llama_turbo_rot & rot);

// The whole for that side ('k', 'v') of a cache with these layers
template <typename T> uint32_t llama_kv_state_rot(char side, uint32_t n_rot, const T & layers) {
    for (const auto & layer : layers) {
        if (const ggml_tensor * rows = side == 'k' ? layer.k : layer.v) {
            n_rot |= llama_kv_state_turbo(rows->type, side == 'k' ? layer.rot.rot.k : layer.rot.rot.v);
        }
    }

    return n_rot;
}

// Whether rows of a state (ref) are like those of the cache, type and rotation; if not, one log line says what would read
// the state. A cache without values (MLA) has no rows, but their rotation all the same.
bool llama_kv_state_check(char side, int32_t type_ref, const ggml_tensor * rows, uint32_t rot_ref, uint32_t rot);

// The hash of the calibration, where n_rot_k says that there is one. Reading: whether it is that of the context (0: none);
// if not, one log line says what would read the state.
void llama_kv_state_write_calibration(llama_io_write_i & io, uint32_t n_rot_k, uint64_t hash);
bool llama_kv_state_read_calibration(llama_io_read_i & io, uint32_t n_rot_k_ref, uint64_t hash);

// Whether a cell can be as a state says; one log line if not. Position and sequences must be such that the cell can be
// removed again.
bool llama_kv_state_cell(llama_pos pos, uint32_t n_seq_id);

// Throws std::runtime_error if a sequence in mem has a position of n_pos or more
void llama_kv_state_below(const llama_memory_i & mem, uint32_t n_seq_max, int64_t n_pos);

class llama_io_read_late;

// A restore of seq_id (-1: of everything) that must not end half way: unless done() was called, the destructor empties
// the sequence (the memory, which may be null).
class llama_state_restore {
  public:
    llama_state_restore(llama_memory_i * mem, llama_seq_id seq_id) : mem(mem), seq_id(seq_id) {}

    ~llama_state_restore();

    // n_read of the size bytes of a state were used; throws std::runtime_error if it cannot have been meant like that
    size_t done(size_t n_read, size_t size);

    // The same for what io has read, which is flushed. What follows the state of a sequence in a file may be anything:
    // llama-server appends to its files.
    void done(llama_io_read_late & io, size_t size, bool appendix = false);

  private:
    llama_memory_i *   mem;
    const llama_seq_id seq_id;

    void require(size_t n_read, size_t size, bool appendix) const;
};

// Reads a state from a file, but the data of tensors only in flush(): when everything else has turned out to be right
class llama_io_read_late : public llama_io_read_i {
  public:
    // io reads from file, where it stands
    llama_io_read_late(llama_io_read_i & io, llama_file & file);

    // throw std::runtime_error if the file is too short, before anything of that size is allocated
    void read(void * dst, size_t size) override;
    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override;

    size_t n_bytes() override;
    void   flush();

  private:
    struct read_info {
        ggml_tensor * tensor;
        size_t        offset;
        size_t        size;
        size_t        pos;  // in the file
    };

    void require(size_t size) const;

    llama_io_read_i & io;
    llama_file &      file;
    const size_t      start;

    std::vector<read_info> rinfos;
};
