// The threads of the Metal shim, and what of its library must be compiled without any liberty about floats.

#include "metal_stdlib"

#undef device
#undef constant
#undef thread
#undef threadgroup
#undef kernel

#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <memory>

#if defined(__SSE__)
#    include <xmmintrin.h>
#endif

msl_thread * msl_current  = nullptr;
msl_launch * msl_launched = nullptr;

msl_library & msl_the_library() {
    static msl_library library;
    return library;
}

//
// fibers: made by ucontext, switched by setjmp, which asks nothing of the system
//

#define STACK_SIZE (256 << 10)
#define GUARD      4096

struct fiber {
    char *     stack;
    ucontext_t context;
    jmp_buf    state;
    msl_thread self;
    bool       started = false;
    bool       done    = false;

    fiber() {
        stack = (char *) mmap(nullptr, GUARD + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(stack, GUARD, PROT_NONE);
    }
};

static std::vector<std::unique_ptr<fiber>> fibers;
static size_t                              n_fibers;
static size_t                              turn;
static jmp_buf                             main_state;
static const std::function<void()> *       main_body;

static void fiber_main();

// go on with the next fiber that lives
static void switch_away() {
    for (size_t i = 0; i < n_fibers; i++) {
        turn      = (turn + 1) % n_fibers;
        fiber & f = *fibers[turn];
        if (f.done) {
            continue;
        }
        msl_current = &f.self;
        if (f.started) {
            _longjmp(f.state, 1);
        }
        f.started = true;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp   = f.stack + GUARD;
        f.context.uc_stack.ss_size = STACK_SIZE;
        f.context.uc_link          = nullptr;
        makecontext(&f.context, fiber_main, 0);
        setcontext(&f.context);
    }
    _longjmp(main_state, 1);
}

static void leave(msl_group & group) {
    group.alive--;
    if (group.alive > 0 && group.arrived == group.alive) {
        group.arrived = 0;
        group.epoch++;
    }
}

static void fiber_main() {
    (*main_body)();
    fiber & f = *fibers[turn];
    f.done    = true;
    leave(*f.self.simdgroup);
    leave(*f.self.threads);
    switch_away();
}

void msl_wait(msl_group & group) {
    const int epoch = group.epoch;
    if (++group.arrived == group.alive) {
        group.arrived = 0;
        group.epoch++;
        return;
    }
    fiber & f = *fibers[turn];
    while (group.epoch == epoch) {
        if (_setjmp(f.state) == 0) {
            switch_away();
        }
    }
}

static void run_threadgroup(const msl_launch & launch, const std::function<void()> & body) {
    const uint3 n = launch.threads;
    n_fibers      = (size_t) n.x * n.y * n.z;
    while (fibers.size() < n_fibers) {
        fibers.emplace_back(new fiber);
    }

    static msl_group                  threads;
    static std::vector<msl_simdgroup> simdgroups;
    threads       = {};
    threads.alive = (int) n_fibers;
    simdgroups.assign((n_fibers + 31) / 32, {});
    for (size_t i = 0; i < n_fibers; i++) {
        fiber & f = *fibers[i];
        f.started = f.done = false;

        f.self                         = {};
        f.self.position_in_threadgroup = uint3(i % n.x, i / n.x % n.y, i / (n.x * n.y));
        f.self.index                   = (ushort) i;
        f.self.lane                    = (ushort) (i % 32);
        f.self.simdgroup               = &simdgroups[i / 32];
        f.self.threads                 = &threads;
        simdgroups[i / 32].alive++;
    }

    main_body = &body;
    turn      = n_fibers - 1;
    if (_setjmp(main_state) == 0) {
        switch_away();
    }
}

// A GPU takes denormals for zeros and makes none; so does the CPU while shaders run, unless told otherwise.
static unsigned set_flush(bool on) {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(on ? before | 0x8040 : before & ~0x8040u);
    return before;
#else
    (void) on;
    return 0;
#endif
}

void msl_run(msl_launch & launch, const std::function<void()> & body) {
    const unsigned before = set_flush(getenv("MSL_KEEP_DENORMALS") == nullptr);

    // Upstream clears the result of heads of 192 and 128 a little too far; nothing of ours lies there.
    launch.threadgroup_memory.resize(launch.threadgroup_memory.size() + GUARD);

    msl_launched = &launch;
    for (uint z = 0; z < launch.threadgroups.z; z++) {
        for (uint y = 0; y < launch.threadgroups.y; y++) {
            for (uint x = 0; x < launch.threadgroups.x; x++) {
                launch.threadgroup_position = uint3(x, y, z);
                std::fill(launch.threadgroup_memory.begin(), launch.threadgroup_memory.end(), 0xff);
                run_threadgroup(launch, body);
            }
        }
    }

#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void) before;
#endif
}

//
// floats
//

float metal::precise::divide(float a, float b) {
    return a / b;
}

float metal::precise::sqrt(float a) {
    return std::sqrt(a);
}

uint16_t msl_half_from_float(float f) {
    const uint32_t bits = metal::as_type<uint32_t>(f);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t x    = bits & 0x7fffffff;
    if (x > 0x7f800000) {
        return (uint16_t) (sign | 0x7e00);
    }
    if (x >= 0x477ff000) {
        return (uint16_t) (sign | 0x7c00);
    }
    if (x >= 0x38800000) {
        return (uint16_t) (sign | ((x - 0x38000000 + 0xfff + ((x >> 13) & 1)) >> 13));
    }
    if (x < 0x33000000) {
        return (uint16_t) sign;
    }
    const uint32_t m     = (x & 0x7fffff) | 0x800000;
    const uint32_t shift = 126 - (x >> 23);
    return (uint16_t) (sign | ((m + (1u << (shift - 1)) - 1 + ((m >> shift) & 1)) >> shift));
}

float msl_half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t x    = h & 0x7fff;
    if (x >= 0x7c00) {
        return metal::as_type<float>(sign | 0x7f800000 | (x & 0x3ff) << 13);
    }
    if (x < 0x400) {
        const float magnitude = (float) x * (1.0f / (1 << 24));
        return sign ? -magnitude : magnitude;
    }
    return metal::as_type<float>(sign | ((x << 13) + 0x38000000));
}
