"""What the layers of a model keep of the tokens that they have seen, from its metadata as upstream's loader reads it.

Sources: upstream's `src/llama-model.cpp` (`load_hparams`, `load_swa_pattern`, `create_memory`), `src/llama-hparams.cpp`
and `src/models/*.cpp` (`load_arch_hparams`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import ModelError
from turbotool.inputs.metadata import DAMAGED, MAX_LAYERS, Metadata


@dataclass(frozen=True)
class CacheShape:
    """One KV cache: values of K and of V in a cell, for each of its layers; with MLA there is no V.

    `window` is how many tokens back a layer looks, None if all of them are kept.
    """

    k: tuple[int, ...]
    v: tuple[int, ...]
    window: int | None = None


@dataclass(frozen=True)
class KvShape:
    """The caches that have layers, those of all tokens first; sizes of a head of K and of V that occur, in values.

    Recurrent layers keep `state` f32 values for each sequence instead, or also. A `problem` says why nothing of this is
    known.
    """

    caches: tuple[CacheShape, ...] = ()
    heads_k: tuple[int, ...] = ()
    heads_v: tuple[int, ...] = ()
    mla: bool = False
    flash: bool = True
    recurrent_layers: int = 0
    state: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Windows:
    """Which layers look back over a window only, where the file does not list them.

    One layer in each `period` sees everything (0: none; None: the file must list them), the last of the period, or with
    `dense_first` the first. `default` is the window if the file names none (None: it must, 0: then there are no
    windows), `fixed` the window whatever it names; `layers` the only number of layers at which there are any.
    """

    period: int | None
    dense_first: bool = False
    default: int | None = None
    fixed: int | None = None
    layers: int | None = None


LISTED = Windows(None)
WINDOWS = {
    "afmoe": Windows(4, default=0),
    "cohere2": Windows(4),
    "cohere2moe": Windows(4, dense_first=True),
    "exaone-moe": Windows(4),
    "exaone4": Windows(4, default=4096, layers=64),
    "gemma2": Windows(2, default=4096),
    "gemma3": Windows(6, default=0),
    "gemma3n": Windows(5),
    "gemma4": LISTED,
    "gpt-oss": Windows(2),
    "granite_swa": LISTED,
    "laguna": Windows(4, dense_first=True, default=0),
    "lfm2": Windows(0, default=0),
    "llama4": Windows(4, default=8192, fixed=8192),
    "maple": LISTED,
    "mellum": Windows(4, default=0),
    "mimo2": LISTED,
    "muse-glimmer": Windows(4),
    "olmo2": Windows(4, default=0),
    "plamo3": Windows(8, default=0),
    "smallthinker": Windows(4, dense_first=True, default=0, fixed=4096),
    "spark2_5": LISTED,
    "step35": LISTED,
}
RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
# layers without KV heads are recurrent
HYBRID = ("jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3")
# layers without KV heads are recurrent if they have no feed-forward part, and keep nothing if they have one
NEMOTRON = ("nemotron_h", "nemotron_h_moe")
# every so many layers one attends, the others are recurrent, unless the file lists them
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
WITHOUT_CACHE = (
    *("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert"),
    *("wavtokenizer-dec", "gemma-embedding", "dream", "llada", "llada-moe", "rnd1"),
)
OTHER_CACHES = (
    *("deepseek32", "deepseek4", "glm-dsa", "glm5-next", "dots3note", "hy_v4", "minimax-m3", "qwen4exp"),
    *("dflash", "eagle3", "gemma4-assistant", "graniteswitch"),
)


def cache_shape(heads: Sequence[int], k: int, v: int, window: int | None = None) -> CacheShape:
    """The cache of layers with these numbers of KV heads, of `k` and `v` values each."""
    return CacheShape(tuple(n * k for n in heads), tuple(n * v for n in heads), window)


def read_shape(meta: Metadata) -> KvShape:
    """Raises ModelError for metadata that upstream could not load either."""
    if meta.arch in WITHOUT_CACHE:
        return KvShape(problem=f"{meta.arch} models keep no KV cache")
    if meta.arch in OTHER_CACHES:
        return KvShape(problem=f"{meta.arch} models keep caches of a kind of their own, whose size is not known here")
    return _Reader(meta).shape()


class _Reader:
    """The layers of a model, one flag or number for each; the first `trunk` of them are not only for drafting."""

    def __init__(self, meta: Metadata) -> None:
        self.meta = meta
        self.layers = meta.layers()
        self.trunk = self.layers - meta.integer("nextn_predict_layers", 0, least=0)
        if self.trunk < 1:
            raise ModelError(f"{meta.path}: all {self.layers} layers are for drafting", hint=DAMAGED)
        self.heads = meta.per_layer("attention.head_count", self.layers, default=(0,) * self.layers)
        self.heads_kv = meta.per_layer("attention.head_count_kv", self.layers, default=self.heads)
        self.wide = meta.per_layer("feed_forward_length", self.layers, default=(0,) * self.layers)

    def shape(self) -> KvShape:
        mla = self.meta.integer("attention.key_length_mla", 0, least=0) > 0
        recurrent = self.recurrent()
        attends = self.attends(recurrent)
        windowed, window = self.windowed()
        dims = {False: head_dims(self.meta)}
        dims[True] = tuple(
            self.meta.integer(f"attention.{side}_length_swa", whole, least=0)
            for side, whole in zip(("key", "value"), dims[False], strict=True)
        )
        caches = []
        for narrow, span in ((False, None), (True, window)):
            heads = [n for il, n in enumerate(self.heads_kv) if attends[il] and windowed[il] == narrow]
            k, v = dims[narrow]
            caches.append(cache_shape(heads * self.loops(), k, 0 if mla else v, span))
        present = [dims[narrow] for narrow in sorted(set(windowed[: self.trunk]))]
        count = sum(recurrent[: self.trunk])
        return KvShape(
            tuple(cache for cache in caches if cache.k),
            tuple(dict.fromkeys(k for k, _ in present)),
            tuple(dict.fromkeys(v for _, v in present)),
            mla,
            self.meta.arch != "grok",
            count,
            self.state() if count else 0,
        )

    def loops(self) -> int:
        """How often the layers are passed, each time with a cache of their own."""
        loops = self.meta.integer("num_loops", 1) if self.meta.arch == "nanbeige" else 1
        if self.layers * loops > MAX_LAYERS:
            raise ModelError(f"{self.meta.path}: {self.layers} layers {loops} times are too many", hint=DAMAGED)
        return loops

    def recurrent(self) -> tuple[bool, ...]:
        """Which layers keep a state."""
        arch, heads = self.meta.arch, self.heads_kv
        if arch in RECURRENT or arch == "falcon-h1":
            return (True,) * self.layers
        if arch in HYBRID:
            return tuple(il < self.trunk and heads[il] == 0 for il in range(self.layers))
        if arch in NEMOTRON:
            return tuple(il < self.trunk and heads[il] == self.wide[il] == 0 for il in range(self.layers))
        if arch not in INTERVALS:
            return (False,) * self.layers
        if self.meta.has("attention.recurrent_layers"):
            return tuple(map(bool, self.meta.per_layer("attention.recurrent_layers", self.layers)))
        interval = self.meta.integer("full_attention_interval", INTERVALS[arch])
        return tuple(il < self.trunk and (il + 1) % interval != 0 for il in range(self.layers))

    def attends(self, recurrent: Sequence[bool]) -> tuple[bool, ...]:
        """Which layers have a place in a KV cache."""
        arch = self.meta.arch
        if arch in RECURRENT:
            return (False,) * self.layers
        if arch == "falcon-h1":
            return (True,) * self.layers
        if arch in HYBRID or arch in NEMOTRON:
            empty = [arch in NEMOTRON and width > 0 for width in self.wide]
            return tuple(not recurrent[il] and not empty[il] for il in range(self.layers))
        end = min(self.trunk, self.first_shared())
        return tuple(il < end and not recurrent[il] for il in range(self.layers))

    def first_shared(self) -> int:
        """The layers from here on use the cache of an earlier one."""
        if self.meta.arch == "gemma3n":
            return 20
        shared = self.meta.integer("attention.shared_kv_layers", 0, least=0) if self.meta.arch == "gemma4" else 0
        return self.layers - shared

    def windowed(self) -> tuple[tuple[bool, ...], int | None]:
        """Which layers look back over a window only, and how many tokens it has."""
        rule, nowhere = WINDOWS.get(self.meta.arch), (False,) * self.layers
        if rule is None or rule.layers not in {None, self.trunk}:
            return nowhere, None
        window = self.meta.integer("attention.sliding_window", rule.default, least=0)
        if window == 0:
            return nowhere, None
        listed = self.meta.listed("attention.sliding_window_pattern")
        flags = self.pattern(rule) if listed is None else tuple(map(bool, listed[: self.layers]))
        return flags + nowhere[len(flags) :], rule.fixed or window

    def pattern(self, rule: Windows) -> tuple[bool, ...]:
        if rule.period is None:
            what = f"{self.meta.arch}.attention.sliding_window_pattern is no list"
            raise ModelError(f"{self.meta.path}: {what}", hint=DAMAGED)
        period = self.meta.integer("attention.sliding_window_pattern", rule.period, least=0)
        dense = 0 if rule.dense_first else period - 1
        return tuple(period == 0 or il % period != dense for il in range(self.trunk))

    def state(self) -> int:
        """Values that one recurrent layer keeps of one sequence: those of convolutions or shifts, and the state."""
        meta, width, heads = self.meta, self.meta.integer("embedding_length"), self.heads[0]
        if size := meta.integer("wkv.head_size", 0, least=0):
            return width * (meta.integer("token_shift_count", 2) + size)
        if taps := meta.integer("shortconv.l_cache", 0, least=0):
            return width * (taps - 1)
        taps = meta.integer("ssm.conv_kernel", 0, least=0)
        if size := meta.integer("kda.head_dim", 0, least=0):
            return heads * size * (3 * (taps - 1 if taps else 3) + size)
        if meta.arch == "minimax-01":
            return heads * head_dims(meta)[0] ** 2
        inner, rank, groups = (
            meta.integer(f"ssm.{key}", 0, least=0) for key in ("inner_size", "state_size", "group_count")
        )
        return max(taps - 1, 0) * (inner + 2 * groups * rank) + rank * inner


def head_dims(meta: Metadata) -> tuple[int, ...]:
    """Values of a head of K and of one of V; 0 for a model whose first layer has no heads."""
    heads = meta.per_layer("attention.head_count", meta.layers(), default=(0,) * meta.layers())[0]
    if heads == 0 and meta.arch != "plamo2":
        return 0, 0
    derived = meta.integer("embedding_length") // heads if heads else 0
    return tuple(meta.integer(f"attention.{side}_length", derived, least=0) for side in ("key", "value"))
