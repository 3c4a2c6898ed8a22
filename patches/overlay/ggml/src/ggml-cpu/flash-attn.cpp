#include "flash-attn.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "kv-row.h"
#include "simd-gemm.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int64_t TILE_KV   = 64;   // cells of the cache that are decoded together
constexpr int64_t MIN_SPLIT = 256;  // cells of a range at least: shorter ones cost more at the barrier than they save
constexpr int64_t TILE_Q    = 64;   // tokens of a block at most
constexpr int64_t FEW_ROWS  = 8;    // float keys: up to here dot products beat a matrix product
constexpr int64_t RESIDENT  = 64 * 1024;  // floats of queries and accumulators of a block: these stay in the L2 cache

constexpr uint16_t F16_NEG_INF = 0xfc00;

int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

int64_t div_up(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

// How the work is cut. A block is a set of query rows that read the same KV head: some of the heads of a GQA group,
// for some tokens. A block's cells may be split in ranges, whose results are joined at the end.
struct fa_plan {
    int64_t heads;   // query heads of a block
    int64_t tokens;  // tokens of a block
    int64_t groups;  // blocks per KV head, over heads
    int64_t n_blocks;
    int64_t n_splits;
    int64_t split;  // cells of a range, a multiple of TILE_KV

    int64_t rows() const { return heads * tokens; }
};

// Scratch of a thread, in floats
struct fa_scratch {
    int64_t q, k, v, row, s, acc, mask, stat;

    fa_scratch(const fa_plan & plan, int64_t dk, int64_t dv) {
        q    = round_up(plan.rows() * dk, 16);
        k    = round_up(TILE_KV * dk, 16);
        v    = round_up(TILE_KV * dv, 16);
        row  = round_up(dk, 16);
        s    = plan.rows() * TILE_KV;
        acc  = round_up(plan.rows() * dv, 16);
        mask = plan.tokens * TILE_KV;
        stat = round_up(plan.rows(), 16);
    }

    int64_t size() const { return q + k + v + row + s + acc + mask + 2 * stat; }
};

bool is_supported(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    // upstream has its own tiles for these
    if (k->type == v->type && (k->type == GGML_TYPE_F32 || k->type == GGML_TYPE_F16)) {
        return false;
    }

    for (const ggml_tensor * t : { k, v }) {
        if (t->nb[0] != ggml_type_size(t->type) || (t->type != GGML_TYPE_F32 && !ggml_cpu_get_to_float(t->type))) {
            return false;
        }
    }

    return q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3];
}

fa_plan make_plan(const ggml_tensor * dst, int64_t nth) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    const int64_t group = q->ne[2] / k->ne[2];
    const int64_t width = k->ne[0] + v->ne[0];

    fa_plan plan;
    plan.tokens = std::min(q->ne[1], TILE_Q);
    plan.heads  = std::max<int64_t>(1, std::min(group, RESIDENT / (plan.tokens * width)));

    // every head has its own mask
    if (mask && mask->ne[2] > 1) {
        plan.heads = 1;
    }

    const int64_t blocks_per_group = k->ne[2] * div_up(q->ne[1], plan.tokens) * q->ne[3];
    while (plan.heads > 1 && plan.tokens > 1 && blocks_per_group * div_up(group, plan.heads) < 2 * nth) {
        plan.heads = div_up(plan.heads, 2);
    }

    plan.groups   = div_up(group, plan.heads);
    plan.n_blocks = blocks_per_group * plan.groups;

    int64_t wanted = 1;
    if (nth > 1 && plan.n_blocks < 2 * nth) {
        wanted = 2 * nth;
    }

    plan.split    = std::max(MIN_SPLIT, round_up(div_up(k->ne[1], wanted), TILE_KV));
    plan.n_splits = div_up(k->ne[1], plan.split);
    return plan;
}

// bytes
size_t work_size(const ggml_tensor * dst, const fa_plan & plan, int64_t nth) {
    const fa_scratch size(plan, dst->src[1]->ne[0], dst->src[2]->ne[0]);

    const int64_t partials = plan.n_splits == 1 ? 0 : plan.n_splits * ggml_nrows(dst) * (2 + dst->ne[0]);

    return (nth * size.size() + partials) * sizeof(float);
}

//
// matrix products
//

#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)

template <int M> void gemm_rows(float * C, const float * A, const float * B, int K, int N) {
    constexpr int KN = GGML_F32_EPR;

    int j = 0;
    for (; j + GEMM_RN * KN <= N; j += GEMM_RN * KN) {
        simd_gemm_ukernel<M, GEMM_RN>(C + j, A, B + j, K, N);
    }
    for (; j + KN <= N; j += KN) {
        simd_gemm_ukernel<M, 1>(C + j, A, B + j, K, N);
    }
    if (j < N) {
        simd_gemm_ukernel_tail<M>(C + j, A, B + j, K, N, N - j);
    }
}

// C[M x N] += A[M x K]*B[K x N]; B is read once for the rows that are left over
void gemm(float * C, const float * A, const float * B, int M, int K, int N) {
    const int full = M - M % GEMM_RM;

    simd_gemm(C, A, B, full, K, N);
    C += full * N;
    A += full * K;
    switch (M - full) {
        case 1:
            gemm_rows<1>(C, A, B, K, N);
            break;
        case 2:
            gemm_rows<2>(C, A, B, K, N);
            break;
        case 3:
            gemm_rows<3>(C, A, B, K, N);
            break;
        case 4:
            gemm_rows<4>(C, A, B, K, N);
            break;
        case 5:
            gemm_rows<5>(C, A, B, K, N);
            break;
    }
}

#else

void gemm(float * C, const float * A, const float * B, int M, int K, int N) {
    simd_gemm(C, A, B, M, K, N);
}

#endif

//
// dot products of integer rows
//

// All of them: s[r][c] = sum over blocks b of 32*NV values of q_steps[r][b]*k_steps[b][c]*<q[r], k[c]>.
// There are `width` cells, a multiple of 16; rows of k_steps are TILE_KV apart.

#if defined(__AVX2__) && defined(__FMA__)

#    if defined(__AVX512VNNI__) && defined(__AVX512VL__)

// the instruction multiplies unsigned with signed bytes: it gets k + 128, and starts at -128*q
inline __m256i load_key(const int8_t * k) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *) k), _mm256_set1_epi8(-128));
}

template <int NV> inline __m256i mul_sum(__m256i sum, const __m256i * k, const __m256i * q) {
    for (int i = 0; i < NV; i++) {
        sum = _mm256_dpbusd_epi32(sum, k[i], q[i]);
    }
    return sum;
}

template <int NV> inline __m256i mul_sum_start(const __m256i * q) {
    __m256i offset[NV];
    for (int i = 0; i < NV; i++) {
        offset[i] = _mm256_set1_epi8(-128);
    }
    return _mm256_sub_epi32(_mm256_setzero_si256(), mul_sum<NV>(_mm256_setzero_si256(), offset, q));
}

#    else

inline __m256i load_key(const int8_t * k) {
    return _mm256_loadu_si256((const __m256i *) k);
}

// levels and queries are within +-127: two products fit 16 bits
template <int NV> inline __m256i mul_sum(__m256i sum, const __m256i * k, const __m256i * q) {
    for (int i = 0; i < NV; i++) {
        const __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(k[i]), _mm256_sign_epi8(q[i], k[i]));
        sum             = _mm256_add_epi32(sum, _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
    }
    return sum;
}

template <int NV> inline __m256i mul_sum_start(const __m256i *) {
    return _mm256_setzero_si256();
}

#    endif

template <int NV>
void dot_levels(const int8_t * k,
                const float *  k_steps,
                const int8_t * q,
                const float *  q_steps,
                int64_t        rows,
                int64_t        dk,
                int64_t        width,
                float *        s) {
    for (int64_t c = 0; c < width; c += 8) {
        for (int64_t b = 0; b < dk / (32 * NV); b++) {
            __m256i kc[8][NV];
            for (int i = 0; i < 8 * NV; i++) {
                kc[i / NV][i % NV] = load_key(k + (c + i / NV) * dk + 32 * (NV * b + i % NV));
            }
            const __m256 kd = _mm256_loadu_ps(k_steps + b * TILE_KV + c);

            for (int64_t r = 0; r < rows; r++) {
                __m256i qr[NV];
                __m256i p[8];
                for (int i = 0; i < NV; i++) {
                    qr[i] = _mm256_loadu_si256((const __m256i *) (q + r * dk + 32 * (NV * b + i)));
                }
                const __m256i start = mul_sum_start<NV>(qr);
                for (int i = 0; i < 8; i++) {
                    p[i] = mul_sum<NV>(start, kc[i], qr);
                }
                const __m256i lo = _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
                const __m256i hi = _mm256_hadd_epi32(_mm256_hadd_epi32(p[4], p[5]), _mm256_hadd_epi32(p[6], p[7]));
                const __m256i sum =
                    _mm256_add_epi32(_mm256_permute2x128_si256(lo, hi, 0x20), _mm256_permute2x128_si256(lo, hi, 0x31));
                const __m256 d  = _mm256_mul_ps(_mm256_set1_ps(q_steps[r * (dk / (32 * NV)) + b]), kd);
                float *      sc = s + r * width + c;
                _mm256_storeu_ps(sc, _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sum),
                                                     b == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(sc)));
            }
        }
    }
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

template <int NV>
void dot_levels(const int8_t * k,
                const float *  k_steps,
                const int8_t * q,
                const float *  q_steps,
                int64_t        rows,
                int64_t        dk,
                int64_t        width,
                float *        s) {
    for (int64_t c = 0; c < width; c += 4) {
        for (int64_t b = 0; b < dk / (32 * NV); b++) {
            const float32x4_t kd = vld1q_f32(k_steps + b * TILE_KV + c);
            for (int64_t r = 0; r < rows; r++) {
                int32x4_t p[4];
                for (int i = 0; i < 4; i++) {
                    p[i] = vdupq_n_s32(0);
                    for (int64_t j = 32 * NV * b; j < 32 * NV * (b + 1); j += 16) {
                        p[i] = ggml_vdotq_s32(p[i], vld1q_s8(k + (c + i) * dk + j), vld1q_s8(q + r * dk + j));
                    }
                }
                const int32x4_t sum = vpaddq_s32(vpaddq_s32(p[0], p[1]), vpaddq_s32(p[2], p[3]));
                float *         sc  = s + r * width + c;
                vst1q_f32(sc, vfmaq_f32(b == 0 ? vdupq_n_f32(0.0f) : vld1q_f32(sc),
                                        vmulq_n_f32(kd, q_steps[r * (dk / (32 * NV)) + b]), vcvtq_f32_s32(sum)));
            }
        }
    }
}

#else

template <int NV>
void dot_levels(const int8_t * k,
                const float *  k_steps,
                const int8_t * q,
                const float *  q_steps,
                int64_t        rows,
                int64_t        dk,
                int64_t        width,
                float *        s) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            s[r * width + c] = 0.0f;
            for (int64_t b = 0; b < dk / (32 * NV); b++) {
                int32_t sum = 0;
                for (int64_t j = 32 * NV * b; j < 32 * NV * (b + 1); j++) {
                    sum += (int32_t) k[c * dk + j] * q[r * dk + j];
                }
                s[r * width + c] += q_steps[r * (dk / (32 * NV)) + b] * k_steps[b * TILE_KV + c] * (float) sum;
            }
        }
    }
}

#endif

//
// weighted sums of integer rows
//

#if defined(__AVX512F__)

struct vec {
    static constexpr int lanes = 16, max_rows = 8;
    __m512               v;

    static vec load(const float * p) { return { _mm512_loadu_ps(p) }; }

    static vec load(const int8_t * p) {
        return { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))) };
    }

    void store(float * p) const { _mm512_storeu_ps(p, v); }

    void add(vec a, float x) { v = _mm512_fmadd_ps(a.v, _mm512_set1_ps(x), v); }

    void raise(vec a) { v = _mm512_max_ps(v, a.v); }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct vec {
    static constexpr int lanes = 8, max_rows = 6;
    __m256               v;

    static vec load(const float * p) { return { _mm256_loadu_ps(p) }; }

    static vec load(const int8_t * p) {
        return { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p))) };
    }

    void store(float * p) const { _mm256_storeu_ps(p, v); }

    void add(vec a, float x) { v = _mm256_fmadd_ps(a.v, _mm256_set1_ps(x), v); }

    void raise(vec a) { v = _mm256_max_ps(v, a.v); }
};

#elif defined(__ARM_NEON) && defined(__aarch64__)

struct vec {
    static constexpr int lanes = 8, max_rows = 4;
    float32x4_t          lo, hi;

    static vec load(const float * p) { return { vld1q_f32(p), vld1q_f32(p + 4) }; }

    static vec load(const int8_t * p) {
        const int16x8_t x = vmovl_s8(vld1_s8(p));
        return { vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(x))) };
    }

    void store(float * p) const {
        vst1q_f32(p, lo);
        vst1q_f32(p + 4, hi);
    }

    void add(vec a, float x) {
        lo = vfmaq_n_f32(lo, a.lo, x);
        hi = vfmaq_n_f32(hi, a.hi, x);
    }

    void raise(vec a) {
        lo = vmaxq_f32(lo, a.lo);
        hi = vmaxq_f32(hi, a.hi);
    }
};

#else

struct vec {
    static constexpr int lanes = 1, max_rows = 4;
    float                v;

    static vec load(const float * p) { return { *p }; }

    static vec load(const int8_t * p) { return { (float) *p }; }

    void store(float * p) const { *p = v; }

    void add(vec a, float x) { v += a.v * x; }

    void raise(vec a) { v = std::max(v, a.v); }
};

#endif

// y[r][j] += sum over cells of w[r][c]*v[c][j], for R rows and n values j, a multiple of 32. Rows of w are TILE_KV apart,
// of y and v `dv`.
template <int R>
void add_levels_rows(float * y, const float * w, const int8_t * v, int64_t n, int64_t n_cells, int64_t dv) {
    constexpr int N = 32 % (2 * vec::lanes) == 0 ? 2 : 1;

    for (int64_t j = 0; j < n; j += N * vec::lanes) {
        vec acc[R][N];
        for (int r = 0; r < R; r++) {
            for (int i = 0; i < N; i++) {
                acc[r][i] = vec::load(y + r * dv + j + i * vec::lanes);
            }
        }
        for (int64_t c = 0; c < n_cells; c++) {
            vec x[N];
            for (int i = 0; i < N; i++) {
                x[i] = vec::load(v + c * dv + j + i * vec::lanes);
            }
            for (int r = 0; r < R; r++) {
                for (int i = 0; i < N; i++) {
                    acc[r][i].add(x[i], w[r * TILE_KV + c]);
                }
            }
        }
        for (int r = 0; r < R; r++) {
            for (int i = 0; i < N; i++) {
                acc[r][i].store(y + r * dv + j + i * vec::lanes);
            }
        }
    }
}

// y[r] += sum over cells of s[r][c]*v_steps[c]*v[c], for n values; rows of s are `width` apart
void add_levels(float *        y,
                const float *  s,
                const int8_t * v,
                const float *  v_steps,
                int64_t        n,
                int64_t        rows,
                int64_t        n_cells,
                int64_t        width,
                int64_t        dv) {
    float w[vec::max_rows * TILE_KV];

    for (int64_t r = 0; r < rows; r += vec::max_rows) {
        const int64_t some = std::min<int64_t>(rows - r, vec::max_rows);
        for (int64_t i = 0; i < some; i++) {
            ggml_vec_mul_f32(n_cells, w + i * TILE_KV, s + (r + i) * width, v_steps);
        }
        switch (some) {
            case 1:
                add_levels_rows<1>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 2:
                add_levels_rows<2>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 3:
                add_levels_rows<3>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 4:
                add_levels_rows<4>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 5:
                add_levels_rows<5>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 6:
                add_levels_rows<6>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 7:
                add_levels_rows<7>(y + r * dv, w, v, n, n_cells, dv);
                break;
            case 8:
                add_levels_rows<8>(y + r * dv, w, v, n, n_cells, dv);
                break;
        }
    }
}

//
// one thread's work
//

class fa_worker {
  public:
    fa_worker(const ggml_compute_params * params, ggml_tensor * dst, const fa_plan & plan) :
        dst(dst),
        q(dst->src[0]),
        k(dst->src[1]),
        v(dst->src[2]),
        mask(dst->src[3]),
        plan(plan),
        dk(k->ne[0]),
        dv(v->ne[0]),
        group(q->ne[2] / k->ne[2]),
        unpack_k(ggml_kv_get_unpack(k->type)),
        unpack_v(ggml_kv_get_unpack(v->type)),
        k_width(ggml_kv_step_width(k->type)),
        v_width(ggml_kv_step_width(v->type)),
        to_float_k(ggml_cpu_get_to_float(k->type)),
        to_float_v(ggml_cpu_get_to_float(v->type)) {
        const float * op_params = (const float *) dst->op_params;
        scale                   = op_params[0];
        max_bias                = op_params[1];
        softcap                 = op_params[2];
        if (softcap != 0.0f) {
            scale /= softcap;
        }

        const fa_scratch size(plan, dk, dv);

        float * p = (float *) params->wdata + params->ith * size.size();
        Q         = p;
        p += size.q;
        K = p;
        p += size.k;
        V = p;
        p += size.v;
        row = p;
        p += size.row;
        S = p;
        p += size.s;
        acc = p;
        p += size.acc;
        bias = p;
        p += size.mask;
        M = p;
        p += size.stat;
        L = p;

        partials = (float *) params->wdata + params->nth * size.size();
    }

    void run(int64_t item) {
        const int64_t split = item / plan.n_blocks;

        select_block(item % plan.n_blocks);
        load_queries();
        std::fill(M, M + rows, -INFINITY);
        std::fill(L, L + rows, 0.0f);
        std::fill(acc, acc + rows * dv, 0.0f);

        const int64_t end = std::min((split + 1) * plan.split, k->ne[1]);
        for (int64_t cell = split * plan.split; cell < end; cell += TILE_KV) {
            if (select_cells(cell, std::min(TILE_KV, end - cell))) {
                score();
                accumulate();
            }
        }

        for (int64_t r = 0; r < rows; r++) {
            const int64_t i = dst_row(r);
            if (plan.n_splits == 1) {
                finish(i, M[r], L[r], acc + r * dv);
            } else {
                float * partial = partials + (split * ggml_nrows(dst) + i) * (2 + dv);
                partial[0]      = M[r];
                partial[1]      = L[r];
                memcpy(partial + 2, acc + r * dv, dv * sizeof(float));
            }
        }
    }

    // joins the ranges of row i of dst
    void join(int64_t i) {
        float m = -INFINITY;
        float l = 0.0f;
        std::fill(acc, acc + dv, 0.0f);

        for (int64_t split = 0; split < plan.n_splits; split++) {
            const float * partial = partials + (split * ggml_nrows(dst) + i) * (2 + dv);
            if (partial[1] == 0.0f) {
                continue;
            }
            const float m_new = std::max(m, partial[0]);
            const float c_old = expf(m - m_new);
            const float c_new = expf(partial[0] - m_new);
            for (int64_t d = 0; d < dv; d++) {
                acc[d] = acc[d] * c_old + partial[2 + d] * c_new;
            }
            l = l * c_old + partial[1] * c_new;
            m = m_new;
        }
        finish(i, m, l, acc);
    }

  private:
    ggml_tensor *       dst;
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const fa_plan &     plan;

    const int64_t dk;
    const int64_t dv;
    const int64_t group;

    const ggml_kv_unpack_t unpack_k;  // null: keys are decoded to float
    const ggml_kv_unpack_t unpack_v;  // the same for values
    const int64_t          k_width;   // values that share a step
    const int64_t          v_width;
    const ggml_to_float_t  to_float_k;
    const ggml_to_float_t  to_float_v;

    float scale;
    float max_bias;
    float softcap;

    float * Q;         // [rows][dk]; with unpack_k bytes [rows][dk], then steps [rows][dk/k_width]
    float * K;         // [dk][width]; with unpack_k bytes [n_cells][dk], then steps [dk/k_width][TILE_KV]
    float * V;         // [width][dv]; with unpack_v bytes [n_cells][dv], then steps [dv/v_width][TILE_KV]
    float * row;       // [dk]
    float * S;         // [rows][width]: scores, then weights
    float * acc;       // [rows][dv]
    float * bias;      // [tokens][width]: mask of the tile
    float * M;         // [rows]: largest score so far
    float * L;         // [rows]: sum of the weights so far
    float * partials;  // [split][row of dst][2 + dv]

    // the block
    int64_t seq;
    int64_t head_kv;
    int64_t head;
    int64_t heads;
    int64_t token;
    int64_t tokens;
    int64_t rows;         // row r is head + r/tokens, token + r%tokens

    const char * k_base;  // cell 0 of the block's KV head
    const char * v_base;

    // the tile
    int32_t cells[TILE_KV];  // those that some row of the block may see
    int64_t n_cells;
    int64_t width;           // n_cells and padding
    bool    biased;          // bias is not all zero

    int8_t * q_levels() { return (int8_t *) Q; }

    float * q_steps() { return Q + rows * dk / 4; }

    int8_t * k_levels() { return (int8_t *) K; }

    float * k_steps() { return K + TILE_KV * dk / 4; }

    int8_t * v_levels() { return (int8_t *) V; }

    float * v_steps() { return V + TILE_KV * dv / 4; }

    void select_block(int64_t block) {
        const int64_t n_token_blocks = div_up(q->ne[1], plan.tokens);

        const int64_t i_token = block % n_token_blocks;
        block /= n_token_blocks;
        const int64_t i_group = block % plan.groups;
        block /= plan.groups;
        head_kv = block % k->ne[2];
        seq     = block / k->ne[2];

        head   = head_kv * group + i_group * plan.heads;
        heads  = std::min(plan.heads, group - i_group * plan.heads);
        token  = i_token * plan.tokens;
        tokens = std::min(plan.tokens, q->ne[1] - token);
        rows   = heads * tokens;

        k_base = (const char *) k->data + head_kv * k->nb[2] + seq / (q->ne[3] / k->ne[3]) * k->nb[3];
        v_base = (const char *) v->data + head_kv * v->nb[2] + seq / (q->ne[3] / v->ne[3]) * v->nb[3];
    }

    static int32_t float_bits(float x) {
        int32_t bits;
        memcpy(&bits, &x, sizeof(bits));
        return bits;
    }

    // levels within +-127 and their step
    static float quantize(const float * x, int64_t n, int8_t * levels) {
        int32_t top = 0;  // the bits of a float's magnitude order as it does; infinity and NaN are the largest
        for (int64_t i = 0; i < n; i++) {
            top = std::max(top, float_bits(x[i]) & 0x7fffffff);
        }
        if (top == 0 || top >= 0x7f800000) {
            memset(levels, 0, n);
            return top == 0 ? 0.0f : NAN;
        }
        float amax;
        memcpy(&amax, &top, sizeof(amax));

        const float magic = 12582912.0f;  // 1.5*2^23: the sum's low mantissa bits are the rounded product
        for (int64_t i = 0; i < n; i++) {
            levels[i] = (int8_t) float_bits(127.0f * (x[i] / amax) + magic);
        }
        return amax / 127.0f;
    }

    void load_queries() {
        for (int64_t r = 0; r < rows; r++) {
            const float * x = (const float *) ((const char *) q->data + (token + r % tokens) * q->nb[1] +
                                               (head + r / tokens) * q->nb[2] + seq * q->nb[3]);
            if (unpack_k) {
                for (int64_t b = 0; b < dk / k_width; b++) {
                    q_steps()[r * (dk / k_width) + b] =
                        scale * quantize(x + b * k_width, k_width, q_levels() + r * dk + b * k_width);
                }
            } else {
                memcpy(Q + r * dk, x, dk * sizeof(float));
                ggml_vec_scale_f32(dk, Q + r * dk, scale);
            }
        }
    }

    // Choose the cells of the tile that a row of the block may see. Returns false if there are none.
    bool select_cells(int64_t first, int64_t n) {
        uint16_t seen[TILE_KV] = { 0 };
        uint16_t bits          = 0;

        const char * m = nullptr;
        if (mask) {
            m = (const char *) mask->data + token * mask->nb[1] + (head % mask->ne[2]) * mask->nb[2] +
                (seq % mask->ne[3]) * mask->nb[3] + first * sizeof(ggml_fp16_t);
            for (int64_t t = 0; t < tokens; t++) {
                const uint16_t * x = (const uint16_t *) (m + t * mask->nb[1]);
                for (int64_t c = 0; c < n; c++) {
                    seen[c] |= x[c] ^ F16_NEG_INF;
                    bits |= x[c];
                }
            }
        }

        biased  = bits != 0;
        n_cells = 0;
        if (biased) {
            for (int64_t c = 0; c < n; c++) {
                if (seen[c]) {
                    cells[n_cells++] = (int32_t) (first + c);
                }
            }
        } else {
            n_cells = n;
            for (int64_t c = 0; c < n; c++) {
                cells[c] = (int32_t) (first + c);
            }
        }
        width = round_up(n_cells, 16);

        for (int64_t t = 0; biased && t < tokens; t++) {
            const ggml_fp16_t * x = (const ggml_fp16_t *) (m + t * mask->nb[1]);
            for (int64_t c = 0; c < n_cells; c++) {
                bias[t * width + c] = GGML_CPU_FP16_TO_FP32(x[cells[c] - first]);
            }
        }
        return n_cells > 0;
    }

    static void decode(ggml_to_float_t to_float, const char * x, float * y, int64_t n) {
        if (to_float) {
            to_float(x, y, n);
        } else {
            memcpy(y, x, n * sizeof(float));
        }
    }

    // S = scaled products of queries and keys
    void score() {
        if (unpack_k) {
            unpack_k(k_base, k->nb[1], cells, n_cells, dk, k_levels(), k_steps(), TILE_KV);
            const auto dot = k_width == 32 ? dot_levels<1> : dot_levels<2>;
            dot(k_levels(), k_steps(), q_levels(), q_steps(), rows, dk, width, S);
        } else if (rows <= FEW_ROWS) {
            for (int64_t c = 0; c < n_cells; c++) {
                decode(to_float_k, k_base + cells[c] * k->nb[1], row, dk);
                for (int64_t r = 0; r < rows; r++) {
                    ggml_vec_dot_f32(dk, S + r * width + c, 0, row, 0, Q + r * dk, 0, 1);
                }
            }
        } else {
            for (int64_t c = 0; c < width; c++) {
                if (c < n_cells) {
                    decode(to_float_k, k_base + cells[c] * k->nb[1], row, dk);
                } else {
                    std::fill(row, row + dk, 0.0f);
                }
                for (int64_t d = 0; d < dk; d++) {
                    K[d * width + c] = row[d];
                }
            }
            std::fill(S, S + rows * width, 0.0f);
            gemm(S, Q, K, rows, dk, width);
        }
    }

    float slope(int64_t h) const {
        if (max_bias <= 0.0f) {
            return 1.0f;
        }
        const uint32_t n_head_log2 = 1u << (uint32_t) floor(log2(q->ne[2]));
        const float    m0          = powf(2.0f, -(max_bias) / n_head_log2);
        const float    m1          = powf(2.0f, -(max_bias / 2.0f) / n_head_log2);
        return h < n_head_log2 ? powf(m0, h + 1) : powf(m1, 2 * (h - n_head_log2) + 1);
    }

    // n is a multiple of 16
    static float largest(const float * x, int64_t n) {
        vec m = vec::load(x);
        for (int64_t i = vec::lanes; i < n; i += vec::lanes) {
            m.raise(vec::load(x + i));
        }
        float lanes[vec::lanes];
        m.store(lanes);
        return *std::max_element(lanes, lanes + vec::lanes);
    }

    // S = weights relative to M; returns false if all of them are zero
    bool weigh() {
        bool any = false;
        for (int64_t r = 0; r < rows; r++) {
            float * s = S + r * width;
            if (softcap != 0.0f) {
                ggml_vec_tanh_f32(n_cells, s, s);
                ggml_vec_scale_f32(n_cells, s, softcap);
            }
            if (biased) {
                const float * b = bias + r % tokens * width;
                const float   f = slope(head + r / tokens);
                for (int64_t c = 0; c < n_cells; c++) {
                    s[c] = b[c] == -INFINITY ? -INFINITY : s[c] + f * b[c];
                }
            }
            std::fill(s + n_cells, s + width, -INFINITY);

            const float m = largest(s, width);
            if (m == -INFINITY) {
                std::fill(s, s + width, 0.0f);
                continue;
            }
            if (m > M[r]) {
                const float c = expf(M[r] - m);
                ggml_vec_scale_f32(dv, acc + r * dv, c);
                L[r] *= c;
                M[r] = m;
            }
            const float sum = (float) ggml_vec_soft_max_f32(width, s, s, M[r]);
            L[r] += sum;
            any = any || sum != 0.0f;
        }
        return any;
    }

    // acc += weights*values
    void accumulate() {
        if (!weigh()) {
            return;
        }
        if (unpack_v) {
            unpack_v(v_base, v->nb[1], cells, n_cells, dv, v_levels(), v_steps(), TILE_KV);
            for (int64_t b = 0; b < dv / v_width; b++) {
                add_levels(acc + b * v_width, S, v_levels() + b * v_width, v_steps() + b * TILE_KV, v_width, rows,
                           n_cells, width, dv);
            }
            return;
        }
        for (int64_t c = 0; c < n_cells; c++) {
            decode(to_float_v, v_base + cells[c] * v->nb[1], V + c * dv, dv);
        }
        std::fill(V + n_cells * dv, V + width * dv, 0.0f);
        gemm(acc, S, V, rows, width, dv);
    }

    // the rows of dst are [seq][token][head]
    int64_t dst_row(int64_t r) const { return (seq * q->ne[1] + token + r % tokens) * q->ne[2] + head + r / tokens; }

    void finish(int64_t i, float m, float l, float * x) {
        const ggml_tensor * sinks = dst->src[4];

        if (sinks) {
            const float s = ((const float *) sinks->data)[i % q->ne[2]];
            if (s > m) {
                const float c = expf(m - s);
                ggml_vec_scale_f32(dv, x, c);
                l = l * c + 1.0f;
            } else {
                l += expf(s - m);
            }
        }
        ggml_vec_scale_f32(dv, x, l == 0.0f ? 0.0f : 1.0f / l);
        memcpy((char *) dst->data + i * dst->nb[1], x, dv * sizeof(float));
    }
};

}  // namespace

size_t ggml_flash_attn_kv_work_size(const ggml_tensor * dst, int n_threads) {
    if (!is_supported(dst)) {
        return 0;
    }

    return work_size(dst, make_plan(dst, n_threads), n_threads);
}

bool ggml_compute_forward_flash_attn_kv(const ggml_compute_params * params, ggml_tensor * dst) {
    if (params->use_ref || !is_supported(dst)) {
        return false;
    }

    const fa_plan plan    = make_plan(dst, params->nth);
    const int64_t n_items = plan.n_blocks * plan.n_splits;

    GGML_ASSERT(work_size(dst, plan, params->nth) <= params->wsize);

    fa_worker worker(params, dst, plan);

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // where there are enough ranges, a thread takes all blocks of one: the rows of the KV heads share cache lines
    const int64_t step = plan.n_splits > 1 && plan.n_splits >= params->nth ? plan.n_blocks : 1;
    for (int64_t first = params->ith * step; first < n_items;
         first         = ggml_threadpool_chunk_add(params->threadpool, 1) * step) {
        for (int64_t item = first; item < first + step; item++) {
            worker.run(item);
        }
    }
    if (plan.n_splits > 1) {
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < ggml_nrows(dst); i += params->nth) {
            worker.join(i);
        }
    }
    return true;
}
