#version 450

#include "types.glsl"
#include "generic_unary_head.glsl"

// a workgroup decodes a block, an invocation 4 values
layout(local_size_x = 16, local_size_y = 1, local_size_z = 1) in;

#define TURBO_A_WORD(i) uint(data_a[ib].w[i])

void main() {
    const uint idx = gl_WorkGroupID.z * 262144 + gl_WorkGroupID.y * 512 + gl_WorkGroupID.x * QUANT_K;
    if (idx >= p.ne) {
        return;
    }

    const uint ib = src0_idx_quant(idx, QUANT_K);
    const uint j  = 4 * gl_LocalInvocationID.x;
    const vec4 v  = turbo_step(TURBO_A_WORD(0)) * TURBO_LEVELS(TURBO_A_WORD, j);

    const uint first = get_doffset() + dst_idx(idx) + j;
    [[unroll]] for (uint l = 0; l < 4; ++l) {
        data_d[first + l] = D_TYPE(v[l]);
    }
}
