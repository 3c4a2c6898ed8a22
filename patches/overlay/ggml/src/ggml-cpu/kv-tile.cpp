#include "kv-tile.h"

#include "kv-block.h"

#include <algorithm>
#include <type_traits>

namespace {

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

#if defined(KV_AVX512)

// 32 levels and KV_OFFSET, of one cell and of another
template <typename block> __m512i get_pair(const block * a, const block * b, int first) {
    const __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(get_levels(a, first)), get_levels(b, first), 1);
    return _mm512_xor_si512(v, _mm512_set1_epi8((char) KV_OFFSET));
}

// The levels and KV_OFFSET of a type whose codes have N values, those of the narrow table and those of the wide one.
template <int N> struct tables {
    alignas(16) int8_t narrow[16];
    alignas(16) int8_t wide[16];

    constexpr tables(const int8_t (&n)[N], const int8_t (&w)[N]) : narrow{}, wide{} {
        for (int i = 0; i < 16; i++) {
            narrow[i] = (int8_t) (n[i % N] - KV_OFFSET);  // of the same bits as the sum
            wide[i]   = (int8_t) (w[i % N] - KV_OFFSET);
        }
    }
};

constexpr tables turbo2_tables(KV_NARROW(2), KV_WIDE(2));
constexpr tables turbo3_tables(KV_NARROW(3), KV_WIDE(3));
constexpr tables turbo4_tables(KV_NARROW(4), KV_WIDE(4));

inline __m128i load(const void * p) {
    return _mm_loadu_si128((const __m128i *) p);
}

// the first in the low half, the other in the high one
inline __m512i halves(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

inline __m512i halves(int low, int high) {
    return halves(_mm256_set1_epi16((int16_t) low), _mm256_set1_epi16((int16_t) high));
}

// Four values each of 16 cells, out of 32 values of pairs of cells: pair i of the first and of the last four is cells i and
// i + 4 of 8.
inline void transpose(const __m512i (&pairs)[8], __m512i (&fours)[8]) {
    __m512i t[2][4];  // of 8 cells each, by value/4 % 4
    for (int h = 0; h < 2; h++) {
        const __m512i * z     = pairs + 4 * h;
        const __m512i   ab[2] = { _mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[0], z[1]) };
        const __m512i   cd[2] = { _mm512_unpacklo_epi32(z[2], z[3]), _mm512_unpackhi_epi32(z[2], z[3]) };
        for (int j = 0; j < 2; j++) {
            t[h][2 * j]     = _mm512_unpacklo_epi64(ab[j], cd[j]);
            t[h][2 * j + 1] = _mm512_unpackhi_epi64(ab[j], cd[j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        fours[j]     = _mm512_shuffle_i32x4(t[0][j], t[1][j], 0x88);
        fours[j + 4] = _mm512_shuffle_i32x4(t[0][j], t[1][j], 0xdd);
    }
}

// Bytes of two pairs of cells, 0 and 2, 1 and 3, as kv_value_order has them.
inline void interleave(__m512i even, __m512i odd, __m512i (&fours)[2]) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    fours[0]          = _mm512_permutexvar_epi16(zip, _mm512_unpacklo_epi8(even, odd));
    fours[1]          = _mm512_permutexvar_epi16(zip, _mm512_unpackhi_epi8(even, odd));
}

// 32 values of 16 cells
template <typename block, int FIRST, typename F> void put_key_vectors(const F & cell, int8_t * to) {
    __m512i pairs[8], fours[8];
    for (int j = 0; j < 8; j++) {
        pairs[j] = get_pair(cell(j / 4 * 8 + j % 4), cell(j / 4 * 8 + j % 4 + 4), FIRST);
    }
    transpose(pairs, fours);
    for (int j = 0; j < 8; j++) {
        _mm512_storeu_si512(to + j * 64, fours[j]);
    }
}

// 32 values of 4 cells
template <typename block, int FIRST, typename F> void put_value_vectors(const F & cell, int8_t * to) {
    __m512i fours[2];
    interleave(get_pair(cell(0), cell(2), FIRST), get_pair(cell(1), cell(3), FIRST), fours);
    _mm512_storeu_si512(to, fours[0]);
    _mm512_storeu_si512(to + 64, fours[1]);
}

#elif defined(__AVX2__) && defined(__FMA__)

// 32 levels and KV_OFFSET
template <typename block> __m256i get_bytes(const block * x, int first) {
    const __m256i v = get_levels(x, first);
    return KV_OFFSET == 0 ? v : _mm256_xor_si256(v, _mm256_set1_epi8((char) KV_OFFSET));
}

// 32 values of 8 cells
template <typename block, int FIRST, typename F> void put_key_vectors(const F & cell, int8_t * to) {
    __m256i t[2][4];  // of 4 cells each, by value/4 % 4
    for (int h = 0; h < 2; h++) {
        __m256i z[4];
        for (int j = 0; j < 4; j++) {
            z[j] = get_bytes(cell(4 * h + j), FIRST);
        }
        const __m256i ab[2] = { _mm256_unpacklo_epi32(z[0], z[1]), _mm256_unpackhi_epi32(z[0], z[1]) };
        const __m256i cd[2] = { _mm256_unpacklo_epi32(z[2], z[3]), _mm256_unpackhi_epi32(z[2], z[3]) };
        for (int j = 0; j < 2; j++) {
            t[h][2 * j]     = _mm256_unpacklo_epi64(ab[j], cd[j]);
            t[h][2 * j + 1] = _mm256_unpackhi_epi64(ab[j], cd[j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        i8x32_store(to + j * 32, _mm256_permute2x128_si256(t[0][j], t[1][j], 0x20));
        i8x32_store(to + (j + 4) * 32, _mm256_permute2x128_si256(t[0][j], t[1][j], 0x31));
    }
}

// 32 values of 4 cells
template <typename block, int FIRST, typename F> void put_value_vectors(const F & cell, int8_t * to) {
    __m256i z[4];
    for (int j = 0; j < 4; j++) {
        z[j] = get_bytes(cell(j), FIRST);
    }
    const __m256i ab[2] = { _mm256_unpacklo_epi8(z[0], z[1]), _mm256_unpackhi_epi8(z[0], z[1]) };
    const __m256i cd[2] = { _mm256_unpacklo_epi8(z[2], z[3]), _mm256_unpackhi_epi8(z[2], z[3]) };
    for (int j = 0; j < 2; j++) {
        i8x32_store(to + j * 64, _mm256_unpacklo_epi16(ab[j], cd[j]));
        i8x32_store(to + j * 64 + 32, _mm256_unpackhi_epi16(ab[j], cd[j]));
    }
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

// 32 values of KV_KEY_CELLS cells
template <typename block, int FIRST, typename F> void put_key_vectors(const F & cell, int8_t * to) {
#    if defined(KV_DOTPROD)
    int32x4x4_t lo, hi;
    for (int j = 0; j < 4; j++) {
        const i8x32 v = get_levels(cell(j), FIRST);
        lo.val[j]     = vreinterpretq_s32_s8(v.val[0]);
        hi.val[j]     = vreinterpretq_s32_s8(v.val[1]);
    }
    vst4q_s32((int32_t *) to, lo);
    vst4q_s32((int32_t *) (to + 64), hi);
#    else
    int64x2x2_t lo, hi;
    for (int j = 0; j < 2; j++) {
        const i8x32 v = get_levels(cell(j), FIRST);
        lo.val[j]     = vreinterpretq_s64_s8(v.val[0]);
        hi.val[j]     = vreinterpretq_s64_s8(v.val[1]);
    }
    vst2q_s64((int64_t *) to, lo);
    vst2q_s64((int64_t *) (to + 32), hi);
#    endif
}

// 32 values of KV_VALUE_CELLS cells
template <typename block, int FIRST, typename F> void put_value_vectors(const F & cell, int8_t * to) {
#    if defined(KV_I8MM)
    int16x8x4_t pairs[4];  // of eight values each
    for (int j = 0; j < 4; j++) {
        const i8x32 a = get_levels(cell(2 * j), FIRST);
        const i8x32 b = get_levels(cell(2 * j + 1), FIRST);
        for (int h = 0; h < 2; h++) {
            pairs[2 * h].val[j]     = vreinterpretq_s16_s8(vzip1q_s8(a.val[h], b.val[h]));
            pairs[2 * h + 1].val[j] = vreinterpretq_s16_s8(vzip2q_s8(a.val[h], b.val[h]));
        }
    }
    for (int j = 0; j < 4; j++) {
        vst4q_s16((int16_t *) (to + 64 * j), pairs[j]);
    }
#    elif defined(KV_DOTPROD)
    int8x16x4_t lo, hi;
    for (int j = 0; j < 4; j++) {
        const i8x32 v = get_levels(cell(j), FIRST);
        lo.val[j]     = v.val[0];
        hi.val[j]     = v.val[1];
    }
    vst4q_s8(to, lo);
    vst4q_s8(to + 64, hi);
#    else
    i8x32_store(to, get_levels(cell(0), FIRST));
#    endif
}

#else

// 32 values of a cell
template <typename block, int FIRST, typename F> void put_key_vectors(const F & cell, int8_t * to) {
    i8x32_store(to, get_levels(cell(0), FIRST));
}

template <typename block, int FIRST, typename F> void put_value_vectors(const F & cell, int8_t * to) {
    i8x32_store(to, get_levels(cell(0), FIRST));
}

#endif

// Keeps x in a register of its kind: GCC moves 16 bits through mask registers, of which it can set one in a cycle.
inline uint32_t in_register(uint32_t x) {
#if defined(__GNUC__) && defined(KV_AVX512)
    __asm__("" : "+r"(x));
#endif
    return x;
}

// Keeps p from being computed anew as a multiple of a distance for each of its uses, which would take a register each.
template <typename T> inline T * hide(T * p) {
#if defined(__GNUC__) && defined(KV_AVX512)
    __asm__("" : "+r"(p));
#endif
    return p;
}

// N rows that lie one after the other, nb apart
template <int N> struct near_rows {
    const char * fours[(N + 3) / 4];
    size_t       nb;

    near_rows(const char * first, size_t nb) : nb(nb) {
        for (int i = 0; i < (N + 3) / 4; i++) {
            fours[i] = i == 0 ? first : hide(fours[i - 1] + 4 * nb);
        }
    }

    const char * operator[](int c) const { return fours[c / 4] + c % 4 * nb; }
};

// N rows wherever they are
template <int N> struct far_rows {
    const char * at[N];

    const char * operator[](int c) const { return at[c]; }
};

// `get` is given a place in the tile and how far into a row a block is, and gives CELLS of them; `put` takes these. `next` is
// where the rows of the next tile are taken to begin.
template <typename block, int CELLS, typename G, typename F>
void unpack(const G &    get,
            const char * next,
            size_t       nb,
            int64_t      n_rows,
            int64_t      n,
            int8_t *     levels,
            float *      steps,
            int64_t      stride,
            const F &    put) {
    constexpr int width = 32 * n_vectors<block>;

    for (int64_t i = 0; i < n / width; i++) {
        float *      d     = steps + i * stride;
        int8_t *     to    = levels + i * width * CELLS;
        const char * ahead = next + (i + 1) * sizeof(block) - 1;  // the line before is that of another block
        for (int64_t r = 0; r < n_rows; r += CELLS) {
            const auto rows = get(r, i * sizeof(block));
            for (int c = 0; c < CELLS; c++) {
                const uint32_t x = in_register(((const block *) rows[c])->d);
                memcpy(d + r + c, &x, sizeof(x));
            }
        }
        for (int64_t r = 0; r < n_rows; r += CELLS, to += n * CELLS, ahead += CELLS * nb) {
            const auto rows = get(r, i * sizeof(block));
            put([&](int c) { return (const block *) rows[c]; }, to, d + r);

            const near_rows<CELLS> later(ahead, nb);
            for (int c = 0; c < CELLS; c++) {
                kv_ask_for(later[c]);
            }
        }
        get_steps<block>(d, n_rows);
    }
}

// the same for rows by their numbers
template <typename block, int CELLS, typename F>
void unpack(const char *    base,
            size_t          nb,
            const int32_t * rows,
            int64_t         n_rows,
            int64_t         n,
            int8_t *        levels,
            float *         steps,
            int64_t         stride,
            const F &       put) {
    const auto apply = [&](const auto & get) {
        unpack<block, CELLS>(get, base + (rows[n_rows - 1] + 1) * nb, nb, n_rows, n, levels, steps, stride, put);
    };
    if (n_rows % CELLS == 0 && rows[n_rows - 1] - rows[0] == n_rows - 1) {
        const char * first = base + rows[0] * nb;
        apply([=](int64_t r, size_t offset) { return near_rows<CELLS>(first + r * nb + offset, nb); });
    } else {
        apply([=](int64_t r, size_t offset) {
            far_rows<CELLS> far;
            for (int c = 0; c < CELLS; c++) {
                far.at[c] = base + rows[r + c] * nb + offset;
            }
            return far;
        });
    }
}

template <typename block> struct tile {
    // a block of KV_KEY_CELLS cells, whose fields d stand at d
    template <typename F> static void put_keys(const F & cell, int8_t * to, const float *) {
        put_key_vectors<block, 0>(cell, to);
        if constexpr (n_vectors<block> == 2) {
            put_key_vectors<block, 32>(cell, to + 32 * KV_KEY_CELLS);
        }
    }

    // the same of KV_VALUE_CELLS cells
    template <typename F> static void put_values(const F & cell, int8_t * to, const float *) {
        put_value_vectors<block, 0>(cell, to);
        if constexpr (n_vectors<block> == 2) {
            put_value_vectors<block, 32>(cell, to + 32 * KV_VALUE_CELLS);
        }
    }
};

#if defined(KV_AVX512)

// Codes of turbo4 are brought to their places before they are looked up: half the bytes.
template <> struct tile<block_turbo4> {
    // levels and KV_OFFSET of codes whose fifth bit chooses the wide table; the bits above it say nothing
    static __m512i lookup(__m512i codes) {
        const __m512i narrow = _mm512_broadcast_i32x4(load(turbo4_tables.narrow));
        const __m512i wide   = _mm512_broadcast_i32x4(load(turbo4_tables.wide));
#    if defined(__AVX512VBMI__)
        return _mm512_permutexvar_epi8(codes, _mm512_mask_blend_epi32(0xf0f0, narrow, wide));
#    else
        const __m512i   index   = _mm512_and_si512(codes, _mm512_set1_epi8(15));
        const __mmask64 is_wide = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(16));
        return _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(narrow, index), is_wide, wide, index);
#    endif
    }

    static __m512i pair(const block_turbo4 * a, const block_turbo4 * b) {
        return _mm512_inserti64x4(_mm512_castsi256_si512(i8x32_load(a->qs)), i8x32_load(b->qs), 1);
    }

    // stores the levels of the low four bits of `codes`, and those of the high ones `apart` bytes on; the choices are fifth bits
    static void put(__m512i codes, __m512i low_choice, __m512i high_choice, int8_t * to, int apart) {
        constexpr int where_set = 0xe2;  // the first where the second is set, the third elsewhere
        const __m512i mask      = _mm512_set1_epi8(15);
        const __m512i high      = _mm512_srli_epi16(codes, 4);
        _mm512_storeu_si512(to, lookup(_mm512_ternarylogic_epi32(codes, mask, low_choice, where_set)));
        _mm512_storeu_si512(to + apart, lookup(_mm512_ternarylogic_epi32(high, mask, high_choice, where_set)));
    }

    template <typename F> static void put_keys(const F & cell, int8_t * to, const float * d) {
        __m512i pairs[8], codes[8], choices[GGML_TURBO_N_GROUPS];
        for (int j = 0; j < 8; j++) {
            pairs[j] = pair(cell(j / 4 * 8 + j % 4), cell(j / 4 * 8 + j % 4 + 4));
        }
        transpose(pairs, codes);

        const __m512i first = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);  // byte of each d
        const __m512i byte  = _mm512_shuffle_epi8(_mm512_loadu_si512(d), first);
        for (int g = 0; g < GGML_TURBO_N_GROUPS; g++) {
            choices[g] = _mm512_slli_epi16(byte, 4 - g);
        }
        for (int j = 0; j < 8; j++) {
            put(codes[j], choices[j / 4], choices[j / 4 + 2], to + 64 * j, 512);
        }
    }

    template <typename F> static void put_values(const F & cell, int8_t * to, const float * d) {
        __m512i codes[2];
        interleave(pair(cell(0), cell(2)), pair(cell(1), cell(3)), codes);

        const __m128i low_bytes = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) d), _mm_set1_epi32(0x0c080400));
        const __m512i choice    = _mm512_broadcastd_epi32(low_bytes);
        const __m512i low       = _mm512_sllv_epi16(choice, halves(4, 3));
        const __m512i high      = _mm512_sllv_epi16(choice, halves(2, 1));
        put(codes[0], low, high, to, 128);
        put(codes[1], low, high, to + 64, 128);
    }
};

// So are those of turbo2 and turbo3: each of 16 bytes of a block holds two bits of four values, one of each group.
template <typename block> struct low_bits_tile {
    static constexpr bool has_high = std::is_same_v<block, block_turbo3>;

    // levels and KV_OFFSET of codes whose fourth bit chooses the wide table
    static __m512i lookup(__m512i codes) {
        const __m128i narrow = load(has_high ? turbo3_tables.narrow : turbo2_tables.narrow);
        const __m128i wide   = load(has_high ? turbo3_tables.wide : turbo2_tables.wide);
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_blend_epi32(narrow, wide, 0xc)), codes);
    }

    // the two low bits of `codes`, and the choice
    static __m512i join(__m512i codes, __m512i choice) {
        constexpr int where_set = 0xe2;  // the first where the second is set, the third elsewhere
        return _mm512_ternarylogic_epi32(codes, _mm512_set1_epi8(3), choice, where_set);
    }

    // and the third bit, which is set where `bits` has one of `mask`
    static __m512i join_high(__m512i codes, __m512i bits, __m512i mask) {
        return _mm512_mask_add_epi8(codes, _mm512_test_epi8_mask(bits, mask), codes, _mm512_set1_epi8(4));
    }

    // 16 bytes of four cells
    static __m512i load_four(const void * a, const void * b, const void * c, const void * d) {
        const __m512i ab  = _mm512_inserti32x4(_mm512_castsi128_si512(load(a)), load(b), 1);
        const __m512i abc = _mm512_inserti32x4(ab, load(c), 2);
        return _mm512_inserti32x4(abc, load(d), 3);
    }

    // four bytes each of 16 cells, out of 16 bytes of each; `at` says where those of a cell are
    template <typename F> static void transpose(const F & at, __m512i (&fours)[4]) {
        __m512i z[4];
        for (int j = 0; j < 4; j++) {
            z[j] = load_four(at(j), at(j + 4), at(j + 8), at(j + 12));
        }
        const __m512i ab[2] = { _mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[0], z[1]) };
        const __m512i cd[2] = { _mm512_unpacklo_epi32(z[2], z[3]), _mm512_unpackhi_epi32(z[2], z[3]) };
        for (int j = 0; j < 2; j++) {
            fours[2 * j]     = _mm512_unpacklo_epi64(ab[j], cd[j]);
            fours[2 * j + 1] = _mm512_unpackhi_epi64(ab[j], cd[j]);
        }
    }

    template <typename F> static void put_keys(const F & cell, int8_t * to, const float * d) {
        __m512i codes[4], high[4];
        transpose([&](int c) { return cell(c)->qs; }, codes);
        if constexpr (has_high) {
            transpose([&](int c) { return cell(c)->qh - 8; }, high);  // its last eight bytes are those of qh
        }

        const __m512i first = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);  // byte of each d
        const __m512i byte  = _mm512_shuffle_epi8(_mm512_loadu_si512(d), first);
        for_groups([&](auto g) {
            const __m512i choice = _mm512_and_si512(_mm512_slli_epi16(byte, 3 - g()), _mm512_set1_epi8(8));
            for (int j = 0; j < 4; j++) {
                __m512i x = join(_mm512_srli_epi16(codes[j], 2 * g()), choice);
                if constexpr (has_high) {
                    const __m512i which = _mm512_add_epi8(first, _mm512_set1_epi8((char) (g() % 2 * 2 + j / 2)));
                    const __m512i bits  = _mm512_shuffle_epi8(high[2 + g() / 2], which);
                    x = join_high(x, bits, _mm512_set1_epi32(j % 2 == 0 ? 0x08040201 : (int) 0x80402010));
                }
                _mm512_storeu_si512(to + 64 * (4 * g() + j), lookup(x));
            }
        });
    }

    template <typename F> static void for_groups(const F & f) {
        f(std::integral_constant<int, 0>());
        f(std::integral_constant<int, 1>());
        f(std::integral_constant<int, 2>());
        f(std::integral_constant<int, 3>());
    }

    template <typename F> static void put_values(const F & cell, int8_t * to, const float * d) {
        const __m512i z = load_four(cell(0)->qs, cell(1)->qs, cell(2)->qs, cell(3)->qs);

        const __m128i low_bytes = _mm_shuffle_epi8(load(d), _mm_set1_epi32(0x0c080400));
        const __m512i byte      = _mm512_broadcastd_epi32(low_bytes);
        const __m512i zip       = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);

        __m512i high = z;  // dword i: byte i of each cell's qh
        if constexpr (has_high) {
            const __m128i ab   = _mm_unpacklo_epi32(_mm_loadl_epi64((const __m128i *) cell(0)->qh),
                                                    _mm_loadl_epi64((const __m128i *) cell(1)->qh));
            const __m128i cd   = _mm_unpacklo_epi32(_mm_loadl_epi64((const __m128i *) cell(2)->qh),
                                                    _mm_loadl_epi64((const __m128i *) cell(3)->qh));
            const __m256i abcd = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi64(ab, cd)),
                                                         _mm_unpackhi_epi64(ab, cd), 1);
            high               = _mm512_castsi256_si512(_mm256_shuffle_epi8(abcd, _mm512_castsi512_si256(zip)));
        }
        for (int y = 0; y < 2; y++) {
            const __m512i fours = _mm512_add_epi32(_mm512_set_epi32(13, 9, 5, 1, 12, 8, 4, 0, 13, 9, 5, 1, 12, 8, 4, 0),
                                                   _mm512_set1_epi32(2 * y));
            const __m512i codes = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(fours, z), zip);
            for (int h = 0; h < 2; h++) {
                const __m512i places = _mm512_sllv_epi16(byte, halves(3 - 2 * h, 2 - 2 * h));
                const __m512i choice = _mm512_and_si512(places, _mm512_set1_epi8(8));
                __m512i       x      = join(_mm512_srlv_epi16(codes, halves(4 * h, 4 * h + 2)), choice);
                if constexpr (has_high) {
                    const __m512i which = halves(_mm256_set1_epi32(4 * h + y), _mm256_set1_epi32(4 * h + 2 + y));
                    const __m512i mask =
                        _mm512_sllv_epi32(_mm512_set1_epi32(0x01010101),
                                          _mm512_set_epi32(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0));
                    x = join_high(x, _mm512_permutexvar_epi32(which, high), mask);
                }
                _mm512_storeu_si512(to + 128 * h + 64 * y, lookup(x));
            }
        }
    }
};

template <> struct tile<block_turbo2> : low_bits_tile<block_turbo2> {};

template <> struct tile<block_turbo3> : low_bits_tile<block_turbo3> {};

#endif

template <typename block>
void unpack_keys(const char *    base,
                 size_t          nb,
                 const int32_t * rows,
                 int64_t         n_rows,
                 int64_t         n,
                 int8_t *        levels,
                 float *         steps,
                 int64_t         stride) {
    unpack<block, KV_KEY_CELLS>(base, nb, rows, n_rows, n, levels, steps, stride,
                                [](const auto &... args) { tile<block>::put_keys(args...); });
}

template <typename block>
void unpack_values(const char *    base,
                   size_t          nb,
                   const int32_t * rows,
                   int64_t         n_rows,
                   int64_t         n,
                   int8_t *        levels,
                   float *         steps,
                   int64_t         stride) {
    unpack<block, KV_VALUE_CELLS>(base, nb, rows, n_rows, n, levels, steps, stride,
                                  [](const auto &... args) { tile<block>::put_values(args...); });
    for (int64_t i = 0; i < n / (32 * n_vectors<block>); i++) {
        std::fill(steps + i * stride + n_rows, steps + i * stride + (n_rows + 15) / 16 * 16, 0.0f);
    }
}

}  // namespace

ggml_kv_unpack_t ggml_kv_get_unpack_keys(enum ggml_type type) {
    return kv_for_type<ggml_kv_unpack_t>(type, [](auto block) { return unpack_keys<decltype(block)>; });
}

ggml_kv_unpack_t ggml_kv_get_unpack_values(enum ggml_type type) {
    return kv_for_type<ggml_kv_unpack_t>(type, [](auto block) { return unpack_values<decltype(block)>; });
}

int64_t ggml_kv_step_width(enum ggml_type type) {
    return ggml_blck_size(type);
}
