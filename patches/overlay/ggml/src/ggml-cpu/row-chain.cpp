#include "row-chain.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "ggml-turbo-impl.h"
#include "ops.h"
#include "turbo.h"

#include <algorithm>
#include <cstring>

constexpr int     MAX_CHAINS  = 4;
constexpr int     MAX_STEPS   = 6;
constexpr int64_t MAX_SCRATCH = 4096;  // values: rows that a thread works on at a time

static bool is_hadamard(const ggml_tensor * t) {
    return t->op == GGML_OP_MUL_MAT && ggml_get_op_params_i32(t, 1) == GGML_HINT_SRC0_IS_HADAMARD;
}

static bool is_with_vector(const ggml_tensor * t) {
    return t->op == GGML_OP_MUL || t->op == GGML_OP_ADD || t->op == GGML_OP_SUB || t->op == GGML_OP_DIV;
}

// where a tensor lies
struct memory {
    const char * begin = nullptr;
    const char * end   = nullptr;

    memory() = default;

    explicit memory(const ggml_tensor * t) : begin((const char *) t->data), end(begin + ggml_nbytes(t)) {}

    bool overlaps(const memory & m) const { return begin < m.end && m.begin < end; }
};

// A row is what the operations with vectors take for one, or one block of a Hadamard product if there are none.
struct row_chain {
    const ggml_tensor * rows = nullptr;  // come from here
    const ggml_tensor * steps[MAX_STEPS];
    int                 n_steps = 0;
    const ggml_tensor * store   = nullptr;  // GGML_OP_SET_ROWS, or null: the last step's tensor is written
    int64_t             n       = 0;        // values of a row
    bool                vectors = false;    // whether an operation with a vector has said what a row is
    int                 end     = 0;        // index of the node behind it

    // once it is whole: what is shared among threads, and what it writes and reads, the rows first
    int64_t unit    = 1;  // rows that a thread computes together
    int64_t n_units = 0;
    int64_t cost    = 0;  // what a unit takes
    memory  out;
    memory  in[MAX_STEPS + 3];
    int     n_in = 0;

    int n_ops() const { return n_steps + (store != nullptr); }

    const ggml_tensor * last() const { return store ? store : steps[n_steps - 1]; }

    bool for_scores() const { return store && store->src[3]; }

    void finish() {
        weigh();

        out        = memory(last());
        in[n_in++] = memory(rows);
        for (int i = 0; i < n_steps; ++i) {
            if (is_with_vector(steps[i])) {
                in[n_in++] = memory(steps[i]->src[1]);
            }
        }
        for (int i : { 1, 3 }) {
            if (store && store->src[i]) {
                in[n_in++] = memory(store->src[i]);
            }
        }
    }

    // whether it overwrites what a chain reads; a row of its own may be written where it came from
    bool overwrites(const row_chain & chain) const {
        const bool in_place = this == &chain && last()->data == rows->data && ggml_is_contiguous(rows);
        return std::any_of(chain.in + in_place, chain.in + chain.n_in,
                           [&](const memory & m) { return m.overlaps(out); });
    }

    // whether both may be computed in any order
    bool independent(const row_chain & chain) const {
        return !out.overlaps(chain.out) && !overwrites(chain) && !chain.overwrites(*this);
    }

  private:
    void weigh() {
        const int64_t per_row = for_scores() ? store->ne[0] / n : 1;
        // blocks that are rounded beside each other take little longer than one
        unit                  = for_scores() ? std::clamp(GGML_TURBO_BESIDE * QK_TURBO / n, (int64_t) 1, per_row) : 1;
        while (per_row % unit != 0) {
            --unit;
        }
        n_units = ggml_nelements(rows) / (n * unit);

        // by what a value takes that is multiplied: one that is stored as turbo4 takes eight times as long, rounded for scores
        // ten times, and of few rows as long for all blocks beside each other
        cost = unit * n;
        if (for_scores()) {
            cost = n_units < GGML_TURBO_LANES ? 16 * (cost + QK_TURBO) : 10 * cost;
        } else if (store) {
            cost *= ggml_is_turbo(store->type) ? 8 : 2;
        }
    }
};

// the operations that chains are made of
static bool is_of_chains(const ggml_tensor * t) {
    return is_with_vector(t) || is_hadamard(t) || t->op == GGML_OP_SET_ROWS;
}

static bool is_f32_rows(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float);
}

static const ggml_tensor * input_of(const ggml_tensor * t) {
    return is_hadamard(t) ? t->src[1] : t->src[0];
}

// Adds an operation whose input is what the chain has so far. False, and the chain as it was, if it does not belong there.
static bool append(row_chain & chain, const ggml_tensor * t) {
    const ggml_tensor * in = input_of(t);

    if (t->op == GGML_OP_SET_ROWS) {
        const int64_t n = chain.n > 0 ? chain.n : in->ne[0];
        if (!is_f32_rows(in) || in->ne[2] != 1 || in->ne[3] != 1 || t->ne[2] != 1 || t->ne[3] != 1 ||
            in->ne[0] % n != 0 || n % ggml_blck_size(t->type) != 0 || t->src[1]->type != GGML_TYPE_I64 ||
            t->src[1]->nb[0] != sizeof(int64_t) || (t->src[3] && n > MAX_SCRATCH) ||
            !ggml_get_type_traits_cpu(t->type)->from_float) {
            return false;
        }
        chain.n     = n;
        chain.store = t;
    } else {
        if (chain.n_steps == MAX_STEPS || !is_f32_rows(in) || !is_f32_rows(t) || !ggml_is_contiguous(t)) {
            return false;
        }
        int64_t n = chain.n;
        if (is_hadamard(t)) {
            n = n > 0 ? n : in->ne[0];
            if (!ggml_is_contiguous(in) || n % in->ne[0] != 0) {
                return false;
            }
        } else {
            const bool wider = !chain.vectors && n > 0 && t->ne[0] % n == 0;
            if (!is_f32_rows(t->src[1]) || t->src[1]->ne[0] != t->ne[0] || (n > 0 && n != t->ne[0] && !wider)) {
                return false;
            }
            n             = t->ne[0];
            chain.vectors = true;
        }
        if (n > MAX_SCRATCH) {
            return false;
        }
        chain.n                      = n;
        chain.steps[chain.n_steps++] = t;
    }
    if (!chain.rows) {
        chain.rows = in;
    }

    return true;
}

// whether t is the same values in the same order
static bool is_same(const ggml_tensor * t, const ggml_tensor * of) {
    while (t != of && ggml_is_contiguous(t) && (t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW) &&
           ggml_nelements(t) == ggml_nelements(of)) {
        t = t->src[0];
    }

    return t == of;
}

// The longest chain from a node on, empty if it begins none
static row_chain chain_at(const ggml_cgraph * graph, int node) {
    row_chain chain;
    chain.end = node;

    for (int i = node; i < graph->n_nodes && !chain.store; ++i) {
        const ggml_tensor * t = graph->nodes[i];
        if (ggml_op_is_empty(t->op)) {
            // seen by nobody but the chain
            if (chain.n_ops() > 0 && (ggml_node_get_use_count(graph, i) != 1 || (t->flags & GGML_TENSOR_FLAG_OUTPUT))) {
                break;
            }
            continue;
        }
        if (!is_of_chains(t) || (t->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
            break;
        }
        if (chain.n_ops() > 0 &&
            (!ggml_node_has_n_uses(graph, chain.end - 1, 1) || !is_same(input_of(t), chain.last()))) {
            break;
        }
        if (!append(chain, t)) {
            break;
        }
        chain.end = i + 1;
    }
    if (chain.n_ops() > 0) {
        chain.finish();
    }

    return chain;
}

// Which row of a tensor of that shape: found once, if need be by divisions, each of which takes as long as the sum of many
// values; then counted
struct row_index {
    const ggml_tensor * shape;
    int64_t             i1, i2, i3;

    row_index(const ggml_tensor * shape, int64_t r) : shape(shape), i1(r), i2(0), i3(0) {
        if (r >= shape->ne[1]) {
            i1 = r % shape->ne[1];
            i2 = r / shape->ne[1] % shape->ne[2];
            i3 = r / shape->ne[1] / shape->ne[2];
        }
    }

    void next() {
        if (++i1 == shape->ne[1]) {
            i1 = 0;
            if (++i2 == shape->ne[2]) {
                i2 = 0;
                ++i3;
            }
        }
    }

    // what belongs to it of a tensor that is repeated
    const float * in(const ggml_tensor * t) const {
        return (const float *) ((const char *) t->data + repeated(i1, t->ne[1]) * t->nb[1] +
                                repeated(i2, t->ne[2]) * t->nb[2] + repeated(i3, t->ne[3]) * t->nb[3]);
    }

  private:
    static int64_t repeated(int64_t i, int64_t n) { return i < n ? i : n == 1 ? 0 : i % n; }
};

static void with_vector(ggml_op op, int64_t n, float * x, const float * v) {
    switch (op) {
        case GGML_OP_MUL:
            for (int64_t i = 0; i < n; ++i) {
                x[i] *= v[i];
            }
            break;
        case GGML_OP_ADD:
            for (int64_t i = 0; i < n; ++i) {
                x[i] += v[i];
            }
            break;
        case GGML_OP_SUB:
            for (int64_t i = 0; i < n; ++i) {
                x[i] -= v[i];
            }
            break;
        case GGML_OP_DIV:
            for (int64_t i = 0; i < n; ++i) {
                x[i] /= v[i];
            }
            break;
        default:
            GGML_ABORT("fatal error");
    }
}

static void hadamard(const ggml_tensor * t, float * x, int64_t n_values) {
    static const ggml_compute_params alone = { 0, 1, 0, nullptr, nullptr, false };

    ggml_tensor rows = {};
    rows.type        = GGML_TYPE_F32;
    rows.ne[0]       = t->src[1]->ne[0];
    rows.ne[1]       = n_values / rows.ne[0];
    rows.ne[2]       = 1;
    rows.ne[3]       = 1;
    rows.nb[0]       = sizeof(float);
    rows.nb[1]       = rows.ne[0] * sizeof(float);
    rows.nb[2]       = n_values * sizeof(float);
    rows.nb[3]       = rows.nb[2];
    rows.data        = x;

    ggml_tensor out = rows;
    out.src[0]      = t->src[0];
    out.src[1]      = &rows;
    ggml_compute_forward_fwht(&alone, &out);
}

// where row r of n values of what is stored goes
static char * place_of(const ggml_tensor * t, int64_t n, int64_t r) {
    const int64_t per_row = t->ne[0] / n;
    const int64_t i1      = ((const int64_t *) t->src[1]->data)[r / per_row];
    GGML_ASSERT(i1 >= 0 && i1 < t->ne[1]);

    return (char *) t->data + i1 * t->nb[1] + ggml_row_size(t->type, r % per_row * n);
}

// n_rows from row r on, which follow each other at x
static void store_rows(const ggml_tensor * t, int64_t n, int64_t r, int64_t n_rows, const float * x) {
    const int64_t per_row = t->ne[0] / n;
    for (int64_t end = r + n_rows; r < end;) {
        // to the same row of the cache
        const int64_t n_values = std::min(end - r, per_row - r % per_row) * n;
        ggml_get_type_traits_cpu(t->type)->from_float(x, place_of(t, n, r), n_values);
        x += n_values;
        r += n_values / n;
    }
}

// the same, rounded for scores
static void store_for_scores(const ggml_tensor * t, int64_t n, int64_t r, int64_t n_rows, const float * x) {
    const auto *  factors  = (const ggml_turbo_factor *) t->src[3]->data;
    const int64_t n_blocks = n / QK_TURBO;
    const int64_t per_row  = t->ne[0] / n;

    ggml_turbo_rounding blocks[MAX_SCRATCH / QK_TURBO];
    int64_t             n_all = 0;
    for (int64_t end = r + n_rows; r < end; ++r, x += n) {
        char *       y   = place_of(t, n, r);
        const auto * own = factors + r % per_row * n_blocks;
        for (int64_t b = 0; b < n_blocks; ++b) {
            blocks[n_all++] = ggml_turbo_rounding_at(t->type, x, y, own, b);
        }
    }
    quantize_turbo_scores(t->type, blocks, n_all);
}

static void compute(const row_chain & chain, int64_t first, int64_t end) {
    const int64_t n     = chain.n;
    const auto    store = chain.for_scores() ? store_for_scores : store_rows;

    int64_t at_once = MAX_SCRATCH / n;
    if (chain.for_scores()) {
        const int64_t lanes = GGML_TURBO_LANES * chain.store->ne[0] / n;
        at_once -= at_once > lanes ? at_once % lanes : 0;
    }

    float scratch[MAX_SCRATCH];
    for (int64_t r0 = first; r0 < end;) {
        if (chain.n_steps == 0) {
            store(chain.store, n, r0, 1, row_index(chain.rows, r0).in(chain.rows));
            ++r0;
            continue;
        }

        const int64_t n_rows = std::min(end - r0, at_once);
        if (is_hadamard(chain.steps[0])) {
            // blocks of a product follow each other
            memcpy(scratch, (const float *) chain.rows->data + r0 * n, n_rows * n * sizeof(float));
        } else {
            row_index at(chain.rows, r0);
            for (float * x = scratch; x < scratch + n_rows * n; x += n, at.next()) {
                memcpy(x, at.in(chain.rows), n * sizeof(float));
            }
        }
        for (int s = 0; s < chain.n_steps; ++s) {
            const ggml_tensor * t = chain.steps[s];
            if (is_hadamard(t)) {
                hadamard(t, scratch, n_rows * n);
                continue;
            }
            row_index at(t, r0);
            for (float * x = scratch; x < scratch + n_rows * n; x += n, at.next()) {
                with_vector(t->op, n, x, at.in(t->src[1]));
            }
        }
        if (chain.store) {
            store(chain.store, n, r0, n_rows, scratch);
        } else {
            memcpy((float *) chain.last()->data + r0 * n, scratch, n_rows * n * sizeof(float));
        }
        r0 += n_rows;
    }
}

int ggml_cpu_row_chains(const ggml_cgraph * graph, int node, const ggml_compute_params * params) {
    row_chain chains[MAX_CHAINS];
    int       n_chains = 0;
    int       n_ops    = 0;
    int64_t   cost     = 0;
    int       end      = node;

    while (n_chains < MAX_CHAINS) {
        const row_chain next = chain_at(graph, end);
        if (next.n_ops() == 0 || next.overwrites(next) ||
            !std::all_of(chains, chains + n_chains, [&](const row_chain & c) { return c.independent(next); })) {
            break;
        }
        chains[n_chains++] = next;
        n_ops += next.n_ops();
        cost += next.n_units * next.cost;
        end = next.end;
    }
    if (n_ops < 2) {
        return 0;
    }

    // the units of all chains one after the other, those that take longest first; a thread takes what begins in its part
    std::sort(chains, chains + n_chains, [](const row_chain & a, const row_chain & b) { return a.cost > b.cost; });
    const int64_t first = cost * params->ith / params->nth;
    const int64_t last  = cost * (params->ith + 1) / params->nth;
    int64_t       begin = 0;
    for (int i = 0; i < n_chains; ++i) {
        const row_chain & chain   = chains[i];
        const auto        unit_at = [&](int64_t at) {
            return std::clamp((at - begin + chain.cost - 1) / chain.cost, (int64_t) 0, chain.n_units);
        };
        const int64_t a = unit_at(first);
        const int64_t b = unit_at(last);
        if (a < b) {
            compute(chain, a * chain.unit, b * chain.unit);
        }
        begin += chain.n_units * chain.cost;
    }

    return end - node - 1;
}
