"""Bytes that the KV caches of a model take: for a pair of types, a context, and the sequences that are served.

How cells are padded: upstream's `src/llama-context.cpp` (the context), `src/llama-kv-cache-iswa.cpp` (windows) and
`src/llama-memory-recurrent.cpp` (states); what is refused: `llama_init_from_model` in `src/llama-context.cpp`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from turbotool.inputs.shape import CacheShape, KvShape
from turbotool.kv.cachetype import BLOCKS, TURBO, CachePair, is_quantized, row_bytes
from turbotool.kv.effective import Cache
from turbotool.kv.serving import Serving

MIB = 1 << 20
CELLS = 256  # a cache has a multiple of this
BATCH = 512  # tokens that are processed at once (-ub), which a window's cache holds beside the window
STATE_BYTES = 4  # f32, whatever the cache types are
CALIBRATION_BYTES = 2 * 4  # of a value of K, whatever the context is: a mean and a scale, in f32
FACTOR_BYTES = 2560  # of a block of a turbo K in one token: by what it is rounded for its scores on a CPU
FACTOR_HEAD = 256  # values of the largest head whose blocks are rounded so


def refusal(shape: KvShape, pair: CachePair) -> str:
    """Why the programs do not make such a cache for the model; empty if they do."""
    if shape.mla and pair.k != pair.v:
        return "K and V must have one type: with MLA the cache of K serves as that of V"
    if not shape.flash and is_quantized(pair.v):
        return f"V cannot be {pair.v}: the model runs without flash attention"
    for side, name, sizes in (("K", pair.k, shape.heads_k), ("V", pair.v, shape.heads_v)):
        block, _ = BLOCKS[name]
        wrong = [size for size in sizes if size % block]
        if wrong:
            return f"{name} holds blocks of {block} values, which do not divide the {wrong[0]} of a head of {side}"
    return ""


def cells(cache: CacheShape, ctx: int, serving: Serving) -> int:
    """Cells of one stream; there is a stream for each sequence, or one if they share."""
    whole = _padded(ctx)
    if cache.window is None:
        return whole
    windows = cache.window * (serving.sequences if serving.shared else 1)
    return _padded(min(whole, windows + min(BATCH, serving.tokens(ctx))))


def _padded(count: int) -> int:
    return -(-count // CELLS) * CELLS


def cell_bytes(cache: CacheShape, pair: CachePair) -> int:
    """Bytes of one token in all layers of a cache."""
    return sum(row_bytes(pair.k, values) for values in cache.k) + sum(row_bytes(pair.v, values) for values in cache.v)


def kv_bytes(shape: KvShape, pair: CachePair, ctx: int, serving: Serving) -> int:
    """Bytes of all KV caches. `ctx` is the context of each sequence, or of all together where they share."""
    streams = 1 if serving.shared else serving.sequences
    return sum(cell_bytes(cache, pair) * cells(cache, ctx, serving) * streams for cache in shape.caches)


def state_bytes(shape: KvShape, serving: Serving) -> int:
    """Bytes of the recurrent states, which depend on neither the context nor the cache types."""
    return STATE_BYTES * shape.state * shape.recurrent_layers * serving.sequences


def calibration_bytes(shape: KvShape, pair: CachePair) -> int:
    """Bytes of the calibration of a quantized K, which the sizes that programs print for a cache do not hold.

    With a turbo K they are those on a CPU; devices, which round to the nearest, take less.
    """
    if not is_quantized(pair.k):
        return 0
    values = sum(sum(cache.k) for cache in shape.caches)
    rounded = pair.k in TURBO and not shape.mla and max(shape.heads_k, default=0) <= FACTOR_HEAD
    block, _ = BLOCKS[pair.k]
    return values * CALIBRATION_BYTES + (values // block * FACTOR_BYTES if rounded else 0)


def bits_per_value(shape: KvShape, pair: CachePair) -> float:
    """Bits that a cached value takes on average over the layers and both sides; 0 without a cache."""
    values = sum(sum(cache.k) + sum(cache.v) for cache in shape.caches)
    return 8 * sum(cell_bytes(cache, pair) for cache in shape.caches) / values if values else 0.0


def largest_ctx(shape: KvShape, pair: CachePair, serving: Serving, budget: int, most: int) -> int:
    """The largest context up to `most` whose caches, calibration and states fit `budget` bytes; 0 if none does."""
    steps = range(CELLS, _padded(most) + 1, CELLS)
    beside = state_bytes(shape, serving) + calibration_bytes(shape, pair)
    fitting = bisect_right(steps, budget, key=lambda ctx: beside + kv_bytes(shape, pair, ctx, serving))
    return min(fitting * CELLS, most)


def expected_mib(shape: KvShape, pair: CachePair, caches: Sequence[Cache]) -> list[float] | None:
    """MiB that each cache in a log must take, by its cells; None if the log's caches are not those of the shape."""
    there = [cache for cache in caches if cache.layers]
    if [cache.layers for cache in there] != [len(one.k) for one in shape.caches]:
        return None
    pairs = zip(shape.caches, there, strict=True)
    return [cell_bytes(one, pair) * cache.cells * cache.streams / MIB for one, cache in pairs]
