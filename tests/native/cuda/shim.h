#pragma once

// As much of CUDA as the turbo kernels use, for a C++ compiler. A warp is 32 fibers in lockstep: a shuffle hands on to the
// next lane, and when a lane runs again every lane has said its value.

#include "ggml-impl.h"
#include "ggml.h"

#include <ucontext.h>

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define FP16_AVAILABLE

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

//
// warps
//

struct warp {
    static constexpr size_t stack = 256 * 1024;

    struct lane {
        ucontext_t              start;
        jmp_buf                 here;
        bool                    started  = false;
        bool                    finished = true;
        unsigned                shuffles = 0;
        std::unique_ptr<char[]> memory{ new char[stack] };
    };

    lane                  lanes[32];
    jmp_buf               caller;
    std::function<void()> job;
    uint32_t              said[2][32];

    void run(std::function<void()> f) {
        job = std::move(f);
        for (lane & l : lanes) {
            l.finished = false;
            l.shuffles = 0;
        }
        if (_setjmp(caller) == 0) {
            resume(0);
        }
        for (const lane & l : lanes) {
            if (!l.finished || l.shuffles != lanes[0].shuffles) {
                fatal("the lanes of a warp did not end together");
            }
        }
    }

    uint32_t shuffle(uint32_t value, int from) {
        const int self = threadIdx.x;
        lane &    l    = lanes[self];
        const int slot = l.shuffles++ % 2;

        said[slot][self] = value;
        if (self > 0 && lanes[self - 1].shuffles != l.shuffles) {
            fatal("the lanes of a warp are not at the same shuffle");
        }
        const int next = (self + 1) % 32;
        if (lanes[next].finished) {
            fatal("a lane of a warp left before a shuffle");
        }
        if (_setjmp(l.here) == 0) {
            resume(next);
        }
        threadIdx.x = self;
        return said[slot][from];
    }

  private:
    [[noreturn]] static void fatal(const char * what) {
        printf("FAILED: %s\n", what);
        exit(1);
    }

    [[noreturn]] void resume(int i) {
        lane & l    = lanes[i];
        threadIdx.x = i;
        if (l.started) {
            _longjmp(l.here, 1);
        }
        l.started = true;
        current   = this;
        getcontext(&l.start);
        l.start.uc_stack.ss_sp   = l.memory.get();
        l.start.uc_stack.ss_size = stack;
        l.start.uc_link          = nullptr;
        makecontext(&l.start, main_of_lane, 0);
        setcontext(&l.start);
        abort();
    }

    static void main_of_lane() {
        warp &    w    = *current;
        const int self = threadIdx.x;
        for (;;) {
            w.job();
            w.lanes[self].finished = true;
            if (_setjmp(w.lanes[self].here) == 0) {
                if (self == 31) {
                    _longjmp(w.caller, 1);
                }
                w.resume(self + 1);
            }
        }
    }

    static warp * current;
};

warp * warp::current = nullptr;

static warp & the_warp() {
    static warp w;
    return w;
}

// runs a kernel as if launched with <<<grid, block>>>; with `shuffles` the threads of a warp run in lockstep
static void launch(dim3 grid, dim3 block, bool shuffles, const std::function<void()> & kernel) {
    gridDim  = grid;
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++) {
                    if (shuffles) {
                        the_warp().run(kernel);
                        continue;
                    }
                    for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++) {
                        kernel();
                    }
                }
            }
        }
    }
}

//
// functions
//

static inline uint32_t __float_as_uint(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float __uint_as_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t __shfl_xor_sync(uint32_t, uint32_t v, int mask, int) {
    return the_warp().shuffle(v, threadIdx.x ^ mask);
}

static inline float __shfl_xor_sync(uint32_t, float v, int mask, int) {
    return __uint_as_float(the_warp().shuffle(__float_as_uint(v), threadIdx.x ^ mask));
}

static inline float __shfl_sync(uint32_t, float v, int from, int) {
    return __uint_as_float(the_warp().shuffle(__float_as_uint(v), from));
}

static inline uint32_t max(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

// this file is compiled without contraction, for IEEE arithmetic
static inline float __fadd_rn(float a, float b) {
    return a + b;
}

static inline float __fsub_rn(float a, float b) {
    return a - b;
}

static inline float __fmul_rn(float a, float b) {
    return a * b;
}

static inline float __fdiv_rn(float a, float b) {
    return a / b;
}

static inline float __fsqrt_rn(float a) {
    return __builtin_sqrtf(a);
}

static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
    const uint64_t bytes  = (uint64_t) y << 32 | x;
    uint32_t       result = 0;
    for (int i = 0; i < 4; i++) {
        result |= (uint32_t) (bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    }
    return result;
}

static inline int ggml_cuda_dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) {
        c += (int8_t) ((uint32_t) a >> 8 * i) * (int8_t) ((uint32_t) b >> 8 * i);
    }
    return c;
}

struct float2 {
    float x, y;
};

struct half {
    uint16_t bits;
};

struct half2 {
    half x, y;
};

struct nv_bfloat16 {
    uint16_t bits;
};

static inline half __ushort_as_half(uint16_t bits) {
    return { bits };
}

static inline uint16_t __half_as_ushort(half h) {
    return h.bits;
}

static inline float __half2float(half h) {
    return GGML_FP16_TO_FP32(h.bits);
}

static inline half __float2half_rn(float f) {
    return { GGML_FP32_TO_FP16(f) };
}

static inline nv_bfloat16 __float2bfloat16_rn(float f) {
    return { GGML_FP32_TO_BF16(f).bits };
}

static inline half2 __half2half2(half h) {
    return { h, h };
}

static inline half2 __float2half2_rn(float f) {
    return __half2half2(__float2half_rn(f));
}

// a product of two halves is exact in float
static inline half2 __hmul2(half2 a, half2 b) {
    return { __float2half_rn(__half2float(a.x) * __half2float(b.x)),
             __float2half_rn(__half2float(a.y) * __half2float(b.y)) };
}

// only for what is exact in float, as in dequantize_V_turbo
static inline half __hfma_exact(half a, half b, half c) {
    const double exact = (double) __half2float(a) * __half2float(b) + __half2float(c);
    if ((double) (float) exact != exact) {
        printf("FAILED: a fused multiply-add of halves that the shim cannot round\n");
        exit(1);
    }
    return __float2half_rn((float) exact);
}

static inline half2 __hfma2(half2 a, half2 b, half2 c) {
    return { __hfma_exact(a.x, b.x, c.x), __hfma_exact(a.y, b.y, c.y) };
}
