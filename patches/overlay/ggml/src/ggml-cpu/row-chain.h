#pragma once

// Chains of small operations on the rows of a token, computed without a barrier between them and without their
// intermediate results in memory: vectors that multiply or shift rows, Hadamard products, and the store into a cache.
// While one token is decoded, what such an operation computes takes far less time than the barrier behind it.

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_cgraph;
struct ggml_compute_params;

// Computes the chains that begin at this node and returns how many nodes behind it they cover; 0, and nothing computed,
// if there is nothing to gain. Every thread comes to the same answer. The values are those of the single operations.
int ggml_cpu_row_chains(const struct ggml_cgraph * graph, int node, const struct ggml_compute_params * params);

#ifdef __cplusplus
}
#endif
