#include "kv-row.h"

#include "ggml-cpu.h"
#include "kv-levels.h"

namespace {

// Vectors of 32 values in a block, and their levels.

template <typename block> constexpr int n_vectors = 1;

template <> constexpr int n_vectors<block_turbo2> = 2;
template <> constexpr int n_vectors<block_turbo3> = 2;
template <> constexpr int n_vectors<block_turbo4> = 2;

template <typename block> float get_step(const block * x) {
    return n_vectors<block> == 2 ? kv_turbo_step(x->d) : kv_step(x->d);
}

// n fields d, each in the place of a float, become steps
template <typename block> void get_steps(float * steps, int64_t n) {
    int64_t i = 0;
#if defined(__AVX2__) && defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        __m256i d = _mm256_loadu_si256((const __m256i *) (steps + i));
        if (n_vectors<block> == 2) {
            d = _mm256_and_si256(_mm256_srli_epi32(d, 1), _mm256_set1_epi32(GGML_TURBO_STEP(0xffff)));
        }
        const __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
        const __m256  unit = _mm256_set1_ps(n_vectors<block> == 2 ? GGML_TURBO_STEP_UNIT : 1.0f);
        _mm256_storeu_ps(steps + i, _mm256_mul_ps(_mm256_cvtph_ps(half), unit));
    }
#endif
    for (; i < n; i++) {
        block    x;
        uint32_t d;
        memcpy(&d, steps + i, sizeof(d));
        x.d      = (uint16_t) d;
        steps[i] = get_step(&x);
    }
}

inline void get_levels(const block_q8_0 * x, i8x32 * v) {
    v[0] = q8_0_levels(x);
}

inline void get_levels(const block_q5_0 * x, i8x32 * v) {
    v[0] = q5_0_levels(x);
}

inline void get_levels(const block_q4_0 * x, i8x32 * v) {
    v[0] = q4_0_levels(x);
}

inline void get_levels(const block_iq4_nl * x, i8x32 * v) {
    v[0] = iq4_nl_levels(x);
}

inline void get_levels(const block_turbo2 * x, i8x32 * v) {
    turbo2_levels(x, &v[0], &v[1]);
}

inline void get_levels(const block_turbo3 * x, i8x32 * v) {
    turbo3_levels(x, &v[0], &v[1]);
}

inline void get_levels(const block_turbo4 * x, i8x32 * v) {
    turbo4_levels(x, &v[0], &v[1]);
}

// stores the levels of a block
template <typename block> void put_levels(const block * x, int8_t * levels) {
    i8x32 v[n_vectors<block>];
    get_levels(x, v);
    for (int j = 0; j < n_vectors<block>; j++) {
        i8x32_store(levels + 32 * j, v[j]);
    }
}

#if defined(__AVX512BW__)

// The levels of 64 values for each choice of their four groups, 16 bytes a group.
struct choices {
    alignas(64) int8_t levels[16][64];

    template <int N> constexpr choices(const int8_t (&narrow)[N], const int8_t (&wide)[N]) : levels{} {
        for (int choice = 0; choice < 16; choice++) {
            for (int i = 0; i < 4 * N; i++) {
                levels[choice][i / N * 16 + i % N] = (choice >> i / N) & 1 ? wide[i % N] : narrow[i % N];
            }
        }
    }

    void store(int8_t * to, uint16_t d, __m512i codes) const {
        _mm512_storeu_si512(to, _mm512_shuffle_epi8(_mm512_load_si512(levels[d & 15]), codes));
    }
};

constexpr choices turbo2_choices(KV_NARROW(2), KV_WIDE(2));
constexpr choices turbo3_choices(KV_NARROW(3), KV_WIDE(3));
constexpr choices turbo4_choices(KV_NARROW(4), KV_WIDE(4));

// 16 bytes hold the codes of four groups, two bits each
inline __m512i low_codes(const uint8_t * q) {
    const __m512i shifts = _mm512_set_epi64(0x0006000600060006, 0x0006000600060006, 0x0004000400040004,
                                            0x0004000400040004, 0x0002000200020002, 0x0002000200020002, 0, 0);
    const __m512i v      = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) q));
    return _mm512_and_si512(_mm512_srlv_epi16(v, shifts), _mm512_set1_epi8(3));
}

template <> void put_levels(const block_turbo2 * x, int8_t * levels) {
    turbo2_choices.store(levels, x->d, low_codes(x->qs));
}

template <> void put_levels(const block_turbo3 * x, int8_t * levels) {
    uint64_t high;
    memcpy(&high, x->qh, sizeof(high));
    const __m512i codes = low_codes(x->qs);
    turbo3_choices.store(levels, x->d, _mm512_mask_add_epi8(codes, high, codes, _mm512_set1_epi8(4)));
}

template <> void put_levels(const block_turbo4 * x, int8_t * levels) {
    const __m256i q = _mm256_loadu_si256((const __m256i *) x->qs);
    const __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(q), _mm256_srli_epi16(q, 4), 1);
    turbo4_choices.store(levels, x->d, _mm512_and_si512(v, _mm512_set1_epi8(15)));
}

#endif

// The CPU's own prefetcher stops where a page ends: ask for the first lines of the pages that the next n bytes touch.
inline void prefetch_pages(const char * next, size_t n) {
#if defined(__GNUC__)
    constexpr uintptr_t page = 4096, line = 64;

    for (uintptr_t p = ((uintptr_t) next + page - 1) / page * page; p < (uintptr_t) next + n; p += page) {
        __builtin_prefetch((const void *) p);
        __builtin_prefetch((const void *) (p + line));
    }
#else
    GGML_UNUSED(next);
    GGML_UNUSED(n);
#endif
}

// N blocks a row if N is not 0
template <typename block, int N>
void kv_unpack_rows(const char *    base,
                    size_t          nb,
                    const int32_t * rows,
                    int64_t         n_rows,
                    int64_t         n,
                    int8_t *        levels,
                    float *         steps,
                    int64_t         stride) {
    constexpr int nv = n_vectors<block>;

    const int64_t n_blocks = N != 0 ? N : n / (32 * nv);

    prefetch_pages(base + (rows[n_rows - 1] + 1) * nb, n_rows * nb);

    for (int64_t r = 0; r < n_rows; r++) {
        const block * x = (const block *) (base + rows[r] * nb);
        for (int64_t i = 0; i < n_blocks; i++) {
            put_levels(&x[i], levels + (r * n_blocks + i) * 32 * nv);
            const uint32_t d = x[i].d;
            memcpy(steps + i * stride + r, &d, sizeof(d));
        }
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        get_steps<block>(steps + i * stride, n_rows);
    }
}

template <typename block>
void kv_unpack(const char *    base,
               size_t          nb,
               const int32_t * rows,
               int64_t         n_rows,
               int64_t         n,
               int8_t *        levels,
               float *         steps,
               int64_t         stride) {
    switch (n / (32 * n_vectors<block>) ) {
        case 1:
            kv_unpack_rows<block, 1>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        case 2:
            kv_unpack_rows<block, 2>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        case 4:
            kv_unpack_rows<block, 4>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
        default:
            kv_unpack_rows<block, 0>(base, nb, rows, n_rows, n, levels, steps, stride);
            break;
    }
}

template <typename block> void kv_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    constexpr int nv = n_vectors<block>;

    const block * x = (const block *) row;
    for (int64_t i = 0; i < n / (32 * nv); i++) {
        i8x32 v[nv];
        get_levels(&x[i], v);
        for (int j = 0; j < nv; j++) {
            i8x32_to_float(v[j], get_step(&x[i]), y + 32 * (nv * i + j));
        }
    }
}

void f16_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) row, y, n);
}

void bf16_to_float(const void * GGML_RESTRICT row, float * GGML_RESTRICT y, int64_t n) {
    ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) row, y, n);
}

}  // namespace

ggml_to_float_t ggml_cpu_get_to_float(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_F16:
            return f16_to_float;
        case GGML_TYPE_BF16:
            return bf16_to_float;
        case GGML_TYPE_Q8_0:
            return kv_to_float<block_q8_0>;
        case GGML_TYPE_Q5_0:
            return kv_to_float<block_q5_0>;
        case GGML_TYPE_Q4_0:
            return kv_to_float<block_q4_0>;
        case GGML_TYPE_IQ4_NL:
            return kv_to_float<block_iq4_nl>;
        case GGML_TYPE_TURBO2:
            return kv_to_float<block_turbo2>;
        case GGML_TYPE_TURBO3:
            return kv_to_float<block_turbo3>;
        case GGML_TYPE_TURBO4:
            return kv_to_float<block_turbo4>;
        default:
            return ggml_get_type_traits(type)->to_float;
    }
}

ggml_kv_unpack_t ggml_kv_get_unpack(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q8_0:
            return kv_unpack<block_q8_0>;
        case GGML_TYPE_Q5_0:
            return kv_unpack<block_q5_0>;
        case GGML_TYPE_Q4_0:
            return kv_unpack<block_q4_0>;
        case GGML_TYPE_IQ4_NL:
            return kv_unpack<block_iq4_nl>;
        case GGML_TYPE_TURBO2:
            return kv_unpack<block_turbo2>;
        case GGML_TYPE_TURBO3:
            return kv_unpack<block_turbo3>;
        case GGML_TYPE_TURBO4:
            return kv_unpack<block_turbo4>;
        default:
            return nullptr;
    }
}

int64_t ggml_kv_step_width(enum ggml_type type) {
    return ggml_blck_size(type);
}
