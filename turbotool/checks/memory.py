"""The cache as a thing that moves: its size, context shift, slot save and restore, sequence copy."""

from __future__ import annotations

import re
from collections import Counter

from turbotool.cachetype import BLOCKS, CachePair, row_bytes
from turbotool.checks.core import F16, Context, Outcome
from turbotool.generate import complete
from turbotool.kvlog import Cache
from turbotool.model import Model
from turbotool.perplexity import Text, measure
from turbotool.rotation import BOTH, OFF, Knobs
from turbotool.server import Continuation, Server, serve

MIB = 1 << 20
SIZE_CTX = 2048
STORY = "Once upon a time there was a"
SHIFT_CTX = 256
SHIFT_TOKENS = 420
TAIL_SHARE = 0.4  # of the text: the tokens that follow the first shift
TAIL_CTX = 32
PASSAGE = "The history of the city begins with a small harbour on the northern coast. In the early years"
CONTINUED = 24
COPIES = 2
MIN_WORDS = 40
MIN_DIFFERENT = 10


def expected_mib(model: Model, cache: Cache, pair: CachePair) -> float | None:
    """MiB that a cache must take: heads x head x cells of its layers; None if the log does not say which they are."""
    if cache.layers != model.n_layer and len(set(model.n_head_kv)) > 1:
        return None
    heads = sum(model.n_head_kv) if cache.layers == model.n_layer else cache.layers * model.n_head_kv[0]
    row = row_bytes(pair.k, model.head_dim_k) + row_bytes(pair.v, model.head_dim_v)
    return heads * row * cache.cells * cache.streams / MIB


def kv_buffer_size(context: Context) -> Outcome:
    """KV buffers take exactly the bits per value of their type: nothing is padded at a head size that blocks divide."""
    names = ("f16", "turbo4", "turbo3", "turbo2") if context.quick else tuple(BLOCKS)
    found, faults = {}, []
    for name in names:
        pair = CachePair(name, name)
        run = complete(context.runner, context.model, pair, "x", n=1, ctx=SIZE_CTX).run
        wanted = [expected_mib(context.model, cache, pair) for cache in run.effective.caches]
        if None in wanted:
            return Outcome(
                False,
                None,
                "exact",
                f"{context.model.arch}: the log does not say which layers a cache holds",
                skipped=True,
            )
        found[name] = sum(mib for _, mib in run.effective.buffers)
        total = sum(value for value in wanted if value is not None)
        # both are printed with two decimals, each cache by itself
        if abs(found[name] - total) > 0.006 * max(1, len(wanted)):
            faults.append(f"{name} takes {found[name]:.2f} MiB, {total:.2f} expected")
    detail = "; ".join(faults) or "MiB at -c 2048: " + ", ".join(f"{name} {mib:.2f}" for name, mib in found.items())
    return Outcome(not faults, found.get("turbo4"), "bits per value x elements, for each type", detail)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def is_language(text: str) -> str:
    """Empty if the text has the shape of prose; else what is wrong with it.

    Greedy text of a small model repeats itself, so only collapse is caught here: hardly any words, one word
    over and over, or symbols instead of words. Whether the words make sense is judged by perplexity.
    """
    words = words_of(text)
    if len(words) < MIN_WORDS:
        return f"{len(words)} words"
    word, count = Counter(words).most_common(1)[0]
    if count > 0.3 * len(words):
        return f"'{word}' is {count} of {len(words)} words"
    if len(set(words)) < MIN_DIFFERENT:
        return f"{len(set(words))} different words"
    letters = sum(len(item) for item in re.findall(r"[^\W\d_]+", text))
    dense = len(re.sub(r"\s", "", text))
    return "" if letters > 0.7 * dense else f"{letters} letters in {dense} characters"


# The default model gives its own f16 continuation a perplexity of 2 to 8 in context 32, and text sampled at high
# temperature, or broken after a shift, one of hundreds.
MAX_TAIL_PPL = 30.0


def context_shift(context: Context) -> Outcome:
    """Generation that outgrows its context runs to the end, and the text after the shift is still language."""
    faults: list[str] = []
    worst = 0.0
    names = ("turbo4",) if context.quick else ("q8_0", "q4_0", "turbo2", "turbo3", "turbo4")
    for name in names:
        pair = CachePair(name, name)
        texts = {}
        for knobs in (OFF,) if context.quick else (OFF, Knobs(disable=True), BOTH):
            made = complete(
                context.runner, context.model, pair, STORY, n=SHIFT_TOKENS, ctx=SHIFT_CTX, shift=True, knobs=knobs
            )
            texts[knobs] = made.text
            if made.tokens != SHIFT_TOKENS:
                faults.append(f"{pair} {knobs}: {made.tokens} tokens")
            tail = made.text[-int(TAIL_SHARE * len(made.text)) :]
            ppl = _tail_perplexity(context, tail)
            worst = max(worst, ppl)
            if (fault := is_language(tail)) or ppl > MAX_TAIL_PPL:
                faults.append(f"{pair} {knobs}: {fault or f'perplexity {ppl:.1f}'}: '{tail[:60]}'")
        if len(texts) > 1 and texts[OFF] != texts[Knobs(disable=True)]:
            faults.append(f"{pair}: LLAMA_ATTN_ROT_DISABLE=1 changes the text")
    detail = (
        "; ".join(faults)
        or f"{', '.join(names)}: {SHIFT_TOKENS} tokens in a context of {SHIFT_CTX}; worst perplexity of the last 40%"
    )
    return Outcome(
        not faults, round(worst, 2), f"all {SHIFT_TOKENS} tokens, perplexity of the rest <= {MAX_TAIL_PPL:g}", detail
    )


def _tail_perplexity(context: Context, tail: str) -> float:
    """Perplexity of a text under the model with an f16 cache; infinity when there is too little text."""
    if len(words_of(tail)) < 2 * TAIL_CTX:
        return float("inf")
    path = context.work / "tail.txt"
    path.write_text(tail, encoding="utf-8")
    return measure(context.runner, context.model, Text(path, ctx=TAIL_CTX, chunks=-1), F16).value


def slot_save_restore(context: Context) -> Outcome:
    """A slot saved, overwritten and restored continues exactly as before: same tokens, same log probabilities."""
    faults = []
    for pair in _turbo_pairs(context):
        with serve(context.runner, context.model, pair, name="slots") as server:
            faults += [f"{pair}: {fault}" for fault in _save_restore(server)]
    return Outcome(
        not faults,
        len(faults),
        "= 0 differences",
        "; ".join(faults) or f"{CONTINUED} tokens, K {', '.join(pair.k for pair in _turbo_pairs(context))}",
    )


def _save_restore(server: Server) -> list[str]:
    server.complete(PASSAGE, slot=0, n=0)
    saved = server.slot(0, "save", "passage.bin")
    before = server.complete(PASSAGE, slot=0, n=CONTINUED)
    server.slot(0, "erase")
    server.complete("Something else altogether, about bread and salt.", slot=0, n=8)
    restored = server.slot(0, "restore", "passage.bin")
    after = server.complete(PASSAGE, slot=0, n=CONTINUED)
    faults = []
    if not saved.get("n_saved") or saved.get("n_saved") != restored.get("n_restored"):
        faults.append(f"saved {saved.get('n_saved')} tokens, restored {restored.get('n_restored')}")
    if after.cached < int(saved.get("n_saved") or 0) - 1 or after.cached < 1:
        faults.append(f"only {after.cached} of {saved.get('n_saved')} restored tokens were used")
    return faults + _compare(before, after)


def _compare(one: Continuation, other: Continuation) -> list[str]:
    if len(one.tokens) != CONTINUED:
        return [f"{len(one.tokens)} tokens instead of {CONTINUED}"]
    for position, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=False)):
        if a != b:
            return [f"token {position + 1} is {b}, was {a}"]
    return [] if len(one.tokens) == len(other.tokens) else [f"{len(other.tokens)} tokens, were {len(one.tokens)}"]


def sequence_copy(context: Context) -> Outcome:
    """One prompt, two completions: llama-server copies the sequence to the second slot, and both go on alike."""
    faults = []
    for pair in _turbo_pairs(context):
        with serve(context.runner, context.model, pair, name="copy") as server:
            alone = server.complete(PASSAGE, slot=0, n=CONTINUED)
            server.slot(0, "erase")
            made = server.complete_many(PASSAGE, copies=COPIES, n=CONTINUED)
            copied = "copying state to child" in server.log.read_text(encoding="utf-8", errors="replace")
            if not copied or len({item.slot for item in made}) != COPIES:
                faults.append(f"{pair}: the sequence was not copied")
            for item in made:
                faults += [f"{pair} slot {item.slot}: {fault}" for fault in _compare_ids(alone, item)]
            faults += [f"{pair} copy: {fault}" for fault in _compare(made[0], made[-1])]
    return Outcome(
        not faults,
        len(faults),
        "= 0 differences",
        "; ".join(faults) or f"{CONTINUED} tokens in 2 slots, K {', '.join(pair.k for pair in _turbo_pairs(context))}",
    )


def _compare_ids(one: Continuation, other: Continuation) -> list[str]:
    """One batch for two slots may round differently from one slot alone: the first tokens must agree, not every bit."""
    first = [(a[0], b[0]) for a, b in zip(one.tokens[:8], other.tokens[:8], strict=False)]
    return [f"token {i + 1} is {b}, alone {a}" for i, (a, b) in enumerate(first) if a != b][:1]


def _turbo_pairs(context: Context) -> list[CachePair]:
    names = ("turbo4",) if context.quick else ("turbo4", "turbo3", "turbo2")
    return [CachePair(name, name) for name in names]
