#version 450

#include "dequant_head.glsl"

layout(local_size_x = 256, local_size_y = 1, local_size_z = 1) in;

layout (binding = 0) readonly buffer A {A_TYPE data_a[];};
layout (binding = 1) writeonly buffer D {D_TYPE data_b[];};

#define TURBO_A_WORD(i) uint(data_a[ib].w[i])

// an invocation decodes 16 values, those of one group
void main() {
    const uint ib = gl_GlobalInvocationID.x / 4;
    if (ib >= p.nel / QUANT_K) {
        return;
    }

    const uint  first = 16 * (gl_GlobalInvocationID.x % 4);
    const float step  = turbo_step(TURBO_A_WORD(0));

    [[unroll]] for (uint j = first; j < first + 16; j += 4) {
        const vec4 v = step * TURBO_LEVELS(TURBO_A_WORD, j);

        [[unroll]] for (uint l = 0; l < 4; ++l) {
            data_b[ib * QUANT_K + j + l] = D_TYPE(v[l]);
        }
    }
}
