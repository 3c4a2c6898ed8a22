#pragma once

// The kernels of attention for AMX, beside those for AVX-512: they read the same tiles, and their sums are the same integers.

#include "flash-attn-vnni.h"

#if defined(__AMX_INT8__) && defined(KV_AVX512) && defined(__linux__)
#    define FA_AMX

#    include <sys/syscall.h>
#    include <unistd.h>

namespace fa_amx {
namespace {

using namespace fa_vnni;

constexpr int64_t max_rows   = 16;       // of a tile register; a row of weights takes two
constexpr int64_t least_rows = 5;        // with fewer the way through the registers takes longer than it saves
constexpr int64_t never      = 1 << 30;  // more rows than a block has

// Asks the system, once, for leave to use the registers; false if this machine has none.
inline bool is_allowed() {
    constexpr long request_permission = 0x1023, tile_data = 18;

    static const bool allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return allowed;
}

// Compilers take the instructions for ones that touch no memory, or only eight bytes of it.
inline void memory_is_touched() {
    __asm__ volatile("" ::: "memory");
}

// The shapes of the tile registers while this lives. What a thread had set, which upstream's matrix products do once, comes back.
//
// dot_rows: 0 and 1 sums of 16 cells, 4 queries, 6 keys; add_rows: 2 and 3 sums of 16 values, 5 weights, 7 values
class registers {
  public:
    const int64_t queries, weights;  // rows that the kernels take together

    // for blocks of so many rows, and keys of which so many values share a step
    registers(int64_t rows, int64_t k_width) :
        queries(rows >= least_rows && is_allowed() ? std::min(rows, max_rows) : never),
        weights(queries == never ? never : std::min(rows, max_rows / 2)) {
        if (queries == never) {
            return;
        }
        memory_is_touched();
        _tile_storeconfig(&before);
        memory_is_touched();

        shapes now  = {};
        now.palette = 1;
        for (int i : { 0, 1, 4 }) {
            now.rows[i] = (uint8_t) queries;
        }
        for (int i : { 2, 3, 5 }) {
            now.rows[i] = (uint8_t) (2 * weights);
        }
        for (int i = 0; i < 8; i++) {
            now.bytes[i] = 64;
        }
        now.bytes[4] = (uint16_t) k_width;
        now.rows[6]  = (uint8_t) (k_width / 4);
        now.rows[7]  = FA_TILE / 4;
        load(now);
    }

    ~registers() {
        if (queries != never) {
            load(before);
        }
    }

    registers(const registers &)             = delete;
    registers & operator=(const registers &) = delete;

  private:
    struct alignas(64) shapes {
        uint8_t  palette, start_row, reserved[14];
        uint16_t bytes[16];  // of a row
        uint8_t  rows[16];
    };

    static_assert(sizeof(shapes) == 64, "what the instructions read and write");

    shapes before = {};

    static void load(const shapes & x) {
        memory_is_touched();
        __asm__ volatile("ldtilecfg %0" : : "m"(x));
    }
};

// sums of 16 cells or values for each row of a register
struct alignas(64) tile_sums {
    int32_t at[max_rows][lanes];

    ints get(int64_t row) const { return load(at[row]); }
};

constexpr int64_t sums_stride = lanes * sizeof(int32_t);

// registers::queries rows
template <int NV>
void dot_rows(const registers &  regs,
              const fa_queries & q,
              const fa_levels &  k,
              int64_t            row,
              int64_t            width,
              int64_t            dk,
              float *            s) {
    constexpr int n = 32 * NV;

    const int64_t n_blocks = dk / n;
    for (int64_t b = 0; b < n_blocks; b++) {
        tile_sums sums[FA_TILE / lanes];

        memory_is_touched();
        _tile_loadd(4, q.data + row * dk + b * n, dk);
        for (int64_t i = 0; i < width / lanes; i++) {
            const int8_t * x = k.data + i * lanes * dk + b * n * lanes;
            if (i % 2 == 0) {
                _tile_zero(0);
                _tile_loadd(6, x, 4 * lanes);
                _tile_dpbsud(0, 4, 6);
                _tile_stored(0, sums[i].at, sums_stride);
            } else {
                _tile_zero(1);
                _tile_loadd(6, x, 4 * lanes);
                _tile_dpbsud(1, 4, 6);
                _tile_stored(1, sums[i].at, sums_stride);
            }
        }
        memory_is_touched();

        for (int64_t r = 0; r < regs.queries; r++) {
            const int64_t block = (row + r) * n_blocks + b;
            const vec     step  = vec::set(q.steps[block]);
            const ints    start = set(q.starts[block]);
            for (int64_t i = 0; i < width / lanes; i++) {
                float *   to    = s + (row + r) * width + i * lanes;
                const vec steps = step * vec::load(k.steps + b * FA_TILE + i * lanes);
                const vec x     = to_float(fa_vnni::add(sums[i].get(r), start));
                (b == 0 ? vec::set(0.0f) : vec::load(to)).add(steps, x).store(to);
            }
        }
    }
}

template <int NV>
void dot_levels(const registers &  regs,
                const fa_queries & q,
                const fa_levels &  k,
                int64_t            rows,
                int64_t            width,
                int64_t            dk,
                float *            s) {
    int64_t row = 0;
    for (; row + regs.queries <= rows; row += regs.queries) {
        dot_rows<NV>(regs, q, k, row, width, dk, s);
    }
    const int64_t n_blocks = dk / (32 * NV);
    fa_vnni::dot_levels<NV>({ q.data + row * dk, q.steps + row * n_blocks, q.starts + row * n_blocks }, k, rows - row,
                            width, dk, s + row * width);
}

// registers::weights rows
template <int NV>
void add_rows(const registers &    regs,
              fa_rows<float>       y,
              fa_rows<const float> w,
              const fa_levels &    v,
              int64_t              row,
              int64_t              dv,
              int64_t              n_cells) {
    constexpr int n = 32 * NV / lanes;  // registers of values in a block

    for (int64_t b = 0; b < dv / (32 * NV); b++) {
        alignas(64) int8_t weights[max_rows][FA_TILE];  // the high bytes of a row, and its low ones
        fa_scale           scales[max_rows / 2];
        tile_sums          sums[n];
        for (int64_t r = 0; r < regs.weights; r++) {
            scales[r] = round_weights(w[row + r], v.steps + b * FA_TILE, n_cells, weights[2 * r], weights[2 * r + 1]);
        }
        const int8_t * x = v.data + b * 32 * NV * KV_VALUE_CELLS;
        memory_is_touched();
        _tile_loadd(5, weights, FA_TILE);
        for (int j = 0; j < n; j += 2) {
            _tile_zero(2);
            _tile_loadd(7, x + j * 4 * lanes, dv * KV_VALUE_CELLS);
            _tile_dpbsud(2, 5, 7);
            _tile_stored(2, sums[j].at, sums_stride);
            _tile_zero(3);
            _tile_loadd(7, x + (j + 1) * 4 * lanes, dv * KV_VALUE_CELLS);
            _tile_dpbsud(3, 5, 7);
            _tile_stored(3, sums[j + 1].at, sums_stride);
        }
        memory_is_touched();

        for (int64_t r = 0; r < regs.weights; r++) {
            const vec  step  = vec::set(scales[r].step);
            const ints start = set(scales[r].start);
            float *    to    = y[row + r] + b * 32 * NV;
            vec        sum[n];
            for (int j = 0; j < n; j++) {
                const ints low = fa_vnni::add(sums[j].get(2 * r + 1), start);
                sum[j]         = to_float(fa_vnni::add(shift_left<8>(sums[j].get(2 * r)), low));
            }
            // as kv_value_order has them
            for (int j = 0; j < n; j += 2) {
                const vec lo = { _mm512_shuffle_f32x4(sum[j].v, sum[j + 1].v, 0x44) };
                const vec hi = { _mm512_shuffle_f32x4(sum[j].v, sum[j + 1].v, 0xee) };
                vec::load(to + j * lanes).add(step, lo).store(to + j * lanes);
                vec::load(to + (j + 1) * lanes).add(step, hi).store(to + (j + 1) * lanes);
            }
        }
    }
}

template <int NV>
void add_levels(const registers &    regs,
                fa_rows<float>       y,
                fa_rows<const float> w,
                const fa_levels &    v,
                int64_t              rows,
                int64_t              dv,
                int64_t              n_cells) {
    int64_t row = 0;
    for (; row + regs.weights <= rows; row += regs.weights) {
        add_rows<NV>(regs, y, w, v, row, dv, n_cells);
    }
    fa_vnni::add_levels<NV>(y.at(row, 0), w.at(row, 0), v, rows - row, dv, n_cells);
}

}  // namespace
}  // namespace fa_amx
#endif
