"""The targets of llama.cpp and of the series that builds and packages are made of."""

from __future__ import annotations

TARGETS = (
    "llama-cli",
    "llama-perplexity",
    "llama-bench",
    "llama-completion",
    "llama-server",
    "llama-quantize",
    "llama-kv-calibrate",
    "llama-kv-divergence",
    "test-backend-ops",
    "test-quantize-fns",
    "test-llama-archs",
    "test-turbo",
    "test-kv-device",
    "test-turbo-backend",
    "test-attention-speed",
    "bench-kv-pairs",
    "test-kv-state",
    "test-kv-calibration",
    "test-log-exit",
    "test-kv-plan",
)
# What packages leave out: two of upstream's, one that calls the CPU backend itself, one that looks into the library.
PACKAGED = tuple(
    name
    for name in TARGETS
    if name not in ("test-quantize-fns", "test-llama-archs", "test-kv-plan", "test-kv-calibration")
)
