#pragma once

// How attention over a cache is cut for threads, and the memory that this takes: arithmetic only.
//
// A block is a set of query rows that read the same KV head: some of the heads of a GQA group, for some tokens. A block's
// cells may be split in ranges, whose results are joined at the end.

#include <algorithm>
#include <cstdint>

constexpr int64_t FA_TILE       = 64;   // cells of the cache that are decoded together
constexpr int64_t FA_PAD        = 16;   // floats: rows that vectors run over end at a multiple of it
constexpr int64_t FA_MIN_SPLIT  = 256;  // cells of a range at least: shorter ones cost more than they save
constexpr int64_t FA_MAX_TOKENS = 64;   // tokens of a block
constexpr int64_t FA_CHUNK      = 128;  // cells that all KV heads read before the next ones, a multiple of FA_TILE
constexpr int64_t FA_RESIDENT   = 64 * 1024;  // floats of queries and accumulators that stay in the L2 cache

inline int64_t fa_div_up(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

inline int64_t fa_round_up(int64_t n, int64_t to) {
    return fa_div_up(n, to) * to;
}

struct fa_shape {
    int64_t dk;  // width of a key
    int64_t dv;  // width of a value
    int64_t tokens;
    int64_t heads;
    int64_t seqs;
    int64_t heads_kv;
    int64_t cells;
    bool    mask_per_head;

    int64_t group() const { return heads / heads_kv; }
};

struct fa_plan {
    int64_t heads;   // query heads of a block
    int64_t tokens;  // tokens of a block
    int64_t groups;  // blocks per KV head, over heads
    int64_t n_blocks;
    int64_t split;   // cells of a range, a multiple of FA_TILE
    int64_t n_splits;

    int64_t together;  // blocks that a thread may take through the cells side by side: all or one

    int64_t rows() const { return heads * tokens; }

    // threads for which there are enough blocks, two for each
    int64_t max_threads() const { return std::max<int64_t>(1, n_blocks / 2); }

    // Fewer heads make more blocks, but a tile is decoded once for each of them; a single token has too few rows for that.
    bool can_halve() const { return heads > 1 && tokens > 1; }
};

// scratch of a thread, and the joint results of ranges, in floats
struct fa_scratch {
    int64_t k, v, row, s, bias;
    int64_t q, acc, stat;  // of a block; stat twice
    int64_t together;      // blocks
    int64_t partials;

    fa_scratch(const fa_shape & shape, const fa_plan & plan) :
        k(fa_round_up(FA_TILE * shape.dk, FA_PAD)),
        v(FA_TILE * fa_round_up(shape.dv, FA_PAD)),
        row(fa_round_up(shape.dk, FA_PAD)),
        s(plan.rows() * FA_TILE),
        bias(plan.tokens * FA_TILE),
        q(fa_round_up(plan.rows() * shape.dk, FA_PAD)),
        acc(plan.rows() * fa_round_up(shape.dv, FA_PAD)),
        stat(fa_round_up(plan.rows(), FA_PAD)),
        together(plan.together),
        partials(plan.n_splits == 1 ? 0 : plan.n_splits * shape.seqs * shape.tokens * shape.heads * (2 + shape.dv)) {}

    int64_t block() const { return q + acc + 2 * stat; }

    int64_t thread() const { return k + v + row + s + bias + together * block(); }

    // with room to begin at a line of the cache: ggml's memory does not, and vectors that cross lines take twice as long
    int64_t size(int64_t n_threads) const { return n_threads * thread() + partials + FA_PAD; }
};

inline fa_plan fa_cut(const fa_shape & shape, int64_t heads, int64_t n_threads) {
    fa_plan plan;
    plan.heads    = heads;
    plan.tokens   = std::min(shape.tokens, FA_MAX_TOKENS);
    plan.groups   = fa_div_up(shape.group(), heads);
    plan.n_blocks = shape.seqs * shape.heads_kv * plan.groups * fa_div_up(shape.tokens, plan.tokens);

    const int64_t ranges = n_threads <= plan.max_threads() ? 1 : 2 * n_threads;

    plan.split    = std::max(FA_MIN_SPLIT, fa_round_up(fa_div_up(shape.cells, ranges), FA_TILE));
    plan.n_splits = fa_div_up(shape.cells, plan.split);
    plan.together = plan.n_blocks * plan.rows() * (shape.dk + shape.dv) <= FA_RESIDENT ? plan.n_blocks : 1;
    return plan;
}

inline int64_t fa_max_heads(const fa_shape & shape) {
    if (shape.mask_per_head) {
        return 1;
    }
    const int64_t floats = std::min(shape.tokens, FA_MAX_TOKENS) * (shape.dk + shape.dv);
    return std::max<int64_t>(1, std::min(shape.group(), FA_RESIDENT / floats));
}

inline fa_plan fa_make_plan(const fa_shape & shape, int64_t n_threads) {
    fa_plan plan = fa_cut(shape, fa_max_heads(shape), n_threads);
    while (plan.can_halve() && n_threads > plan.max_threads()) {
        plan = fa_cut(shape, fa_div_up(plan.heads, 2), n_threads);
    }
    return plan;
}

// Floats that do for any number of threads up to n_threads: ggml may run fewer than it planned for, and the plan for fewer
// may need more. Of the numbers of threads whose blocks have the same heads, the largest needs most.
inline int64_t fa_work_size(const fa_shape & shape, int64_t n_threads) {
    int64_t size  = 0;
    int64_t heads = fa_max_heads(shape);
    for (int64_t n = 0; n < n_threads; heads = fa_div_up(heads, 2)) {
        const fa_plan plan = fa_cut(shape, heads, n_threads);
        n                  = plan.can_halve() ? std::min(n_threads, plan.max_threads()) : n_threads;
        size               = std::max(size, fa_scratch(shape, fa_cut(shape, heads, n)).size(n));
    }
    return size;
}
