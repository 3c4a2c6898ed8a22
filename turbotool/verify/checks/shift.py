"""Context shift: generation goes on after the context has filled up, and moved keys still mean what they meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from turbotool.errors import BinaryFailed
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.rotation import BOTH, OFF, Knobs
from turbotool.programs.completion import complete
from turbotool.programs.perplexity import Text, measure
from turbotool.programs.server import Prediction, Setup, serve
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.likeness import Twice, likeness, mean_kld
from turbotool.verify.checks.quality import TURBO4

STORY = "Once upon a time there was a"
SHIFT_CTX = 256
SHIFT_TOKENS = 420
TAIL_SHARE = 0.4  # of the text: the tokens that follow the first shift
TAIL_CTX = 32
MIN_WORDS = 40
MIN_DIFFERENT = 10
MOST_OF_ONE = 0.5


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def is_language(text: str) -> str:
    """Empty if the text has the shape of prose; else what is wrong with it.

    Only collapse is caught here: hardly any words, one word over and over, or symbols instead of words. Whether the
    words make sense is judged by perplexity. A story of a tree was 36 % "tree" with turbo3 in one rounding of its
    attention, with a perplexity of 245; a collapse is one word and nothing else.
    """
    words = words_of(text)
    if len(words) < MIN_WORDS:
        return f"{len(words)} words"
    word, count = Counter(words).most_common(1)[0]
    if count > MOST_OF_ONE * len(words):
        return f"'{word}' is {count} of {len(words)} words"
    if len(set(words)) < MIN_DIFFERENT:
        return f"{len(set(words))} different words"
    letters = sum(len(item) for item in re.findall(r"[^\W\d_]+", text))
    dense = len(re.sub(r"\s", "", text))
    return "" if letters > 0.7 * dense else f"{letters} letters in {dense} characters"


# Greedy text of a small model ends in a loop that any noise may break, so repetition is penalised. Measured on the
# default model in context 32: f16 27, q8_0 and q4_0 33, turbo4 28, turbo3 60, turbo2 80 to 300 with the rotation knobs;
# word salad gives 85,000. The bound is the geometric middle, and far from both.
REPEAT_PENALTY = 1.15
MAX_TAIL_PPL = 5000.0


def context_shift(context: Context) -> CheckOutcome:
    """Generation that outgrows its context runs to the end, and the text after the shift is still language."""
    faults: list[str] = []
    worst: dict[str, float] = {}
    names = ("turbo4",) if context.quick else ("q8_0", "q4_0", "turbo2", "turbo3", "turbo4")
    for name in names:
        pair = CachePair(name, name)
        texts = {}
        for knobs in (OFF,) if context.quick else (OFF, Knobs(disable=True), BOTH):
            made = complete(
                context.runner,
                context.model,
                pair,
                STORY,
                n=SHIFT_TOKENS,
                ctx=SHIFT_CTX,
                shift=True,
                repeat_penalty=REPEAT_PENALTY,
                knobs=knobs,
            )
            texts[knobs] = made.text
            if made.tokens != SHIFT_TOKENS:
                faults.append(f"{pair} {knobs}: {made.tokens} tokens")
            tail = made.text[-int(TAIL_SHARE * len(made.text)) :]
            ppl = _tail_perplexity(context, tail)
            worst[name] = max(worst.get(name, 0.0), ppl)
            if (fault := is_language(tail)) or ppl > MAX_TAIL_PPL:
                faults.append(f"{pair} {knobs}: {fault or f'perplexity {ppl:.1f}'}: '{tail[:60]}'")
        if len(texts) > 1 and texts[OFF] != texts[Knobs(disable=True)]:
            faults.append(f"{pair}: LLAMA_ATTN_ROT_DISABLE=1 changes the text")
    found = ", ".join(f"{name} {ppl:.0f}" for name, ppl in worst.items())
    detail = "; ".join(faults) or f"{SHIFT_TOKENS} tokens in a context of {SHIFT_CTX}; perplexity of the rest: {found}"
    bound = f"all {SHIFT_TOKENS} tokens, perplexity of the rest <= {MAX_TAIL_PPL:g}"
    return CheckOutcome(not faults, round(max(worst.values()), 2), bound, detail)


def _tail_perplexity(context: Context, tail: str) -> float:
    """Perplexity of a text under the model with an f16 cache; infinity when there is too little text."""
    if len(words_of(tail)) < 2 * TAIL_CTX:
        return float("inf")
    path = context.work / "tail.txt"
    path.write_text(tail, encoding="utf-8")
    return measure(context.runner, context.model, Text(path, ctx=TAIL_CTX, chunks=-1), F16).value


# Mean KLD (nats) of the next token after cached keys have moved to new positions, against f16 that moved too. A
# quantized key is quantized a second time, which costs 2 to 3 times the KLD of a fresh one; keys rotated in the wrong
# basis cost whole nats. Measured: q8_0 0.01, q4_0 0.33, turbo4 0.18, turbo3 0.38.
SHIFT_BOUNDS = {"q8_0": 0.15, "q4_0": 1.2, "turbo4": 1.0, "turbo3": 2.5}
SHIFT_PIECES = 6
PIECE = 900  # characters, about 230 tokens
PREFIX = 500
REUSE = 32
MOVES = Setup(reuse=REUSE)
TOP = 200
MOST_NEW = 24  # tokens that may be evaluated: words that are broken off where the text is cut
# Of a piece: the words that stay in front, those behind them that are cut out, and what is put there instead.
FRONT, CUT = 50, 20
INSTEAD = "Somebody has written another sentence here, about bread and salt."


def shift_fidelity(context: Context) -> CheckOutcome:
    """The next token after a context shift is predicted as an f16 cache predicts it after the same shift."""
    names = ("turbo4",) if context.quick else tuple(SHIFT_BOUNDS)
    return _as_f16_moves(context, names, [(f"{prefix}\n\n{text}", text) for prefix, text in _pieces(context)])


def middle_edit(context: Context) -> CheckOutcome:
    """What follows a cut in the middle of a prompt is moved and means what it meant; new text there leaves no trace.

    llama-server moves only what it finds again at once: behind new text it evaluates the rest.
    """
    pieces = [text for _, text in _pieces(context)]
    moved = _as_f16_moves(context, ("turbo4",), [(text, _edited(text)) for text in pieces])
    found = likeness(*(_anew_and_edited(context, pair, pieces) for pair in (F16, TURBO4)))
    detail = f"{moved.detail}; behind new text, from a prompt computed anew, {found}"
    return replace(moved, ok=moved.ok and found.ok, detail=detail, bound=f"{moved.bound}; new text {found.bound}")


def _edited(text: str, instead: str = "") -> str:
    """Cut between words, so that what follows is the same tokens."""
    words = text.split(" ")
    return " ".join([*words[:FRONT], *filter(None, [instead]), *words[FRONT + CUT :]])


def _as_f16_moves(context: Context, names: Sequence[str], prompts: list[tuple[str, str]]) -> CheckOutcome:
    reference = _shifted(context, F16, prompts)
    means, faults = {}, []
    for name in names:
        found = _shifted(context, CachePair(name, name), prompts)
        means[name] = mean_kld(reference, found)
        if not means[name] <= SHIFT_BOUNDS[name]:
            faults.append(f"{name} {means[name]:.3f} > {SHIFT_BOUNDS[name]}")
    detail = "; ".join(faults) or ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    bound = f"mean KLD <= {SHIFT_BOUNDS['turbo4']:g} for turbo4"
    return CheckOutcome(not faults, means["turbo4"], bound + ", others likewise" * (len(names) > 1), detail)


def _pieces(context: Context) -> list[tuple[str, str]]:
    """(prefix that will be dropped, text that will move to the front) from different places of the corpus."""
    text = context.text.path.read_text(encoding="utf-8")
    step = max((len(text) - PIECE - PREFIX) // SHIFT_PIECES, 1)
    starts = [number * step for number in range(SHIFT_PIECES)]
    return [(text[at : at + PREFIX], text[at + PREFIX : at + PREFIX + PIECE]) for at in starts]


def _shifted(context: Context, pair: CachePair, prompts: list[tuple[str, str]]) -> list[Prediction]:
    """What follows the second of each two prompts, most of which is moved from where it is in the first."""
    found = []
    with serve(context.runner, context.model, pair, name=f"shift-{pair.k}", setup=MOVES) as server:
        for before, after in prompts:
            server.slot(0, "erase")
            server.next_token(before, slot=0, top=1)
            predicted = server.next_token(after, slot=0, top=TOP)
            evaluated = server.count(after) - predicted.cached
            if evaluated > MOST_NEW:
                raise BinaryFailed(f"{pair}: llama-server evaluated {evaluated} tokens, not a few", how="no shift")
            found.append(predicted)
    return found


def _anew_and_edited(context: Context, pair: CachePair, pieces: list[str]) -> Twice:
    """What follows pieces with new text in their middle: anew, and where a part of the cache was moved before."""
    anew, edited = [], []
    with serve(context.runner, context.model, pair, name=f"edit-{pair.k}", setup=MOVES) as server:
        for text in pieces:
            prompt = _edited(text, INSTEAD)
            server.slot(0, "erase")
            for before in (text, _edited(text)):
                server.next_token(before, slot=0, top=1)
            edited.append(server.next_token(prompt, slot=0, top=TOP))
            if not edited[-1].cached:
                raise BinaryFailed(f"{pair}: llama-server kept nothing of what stands before an edit", how="no reuse")
            server.slot(0, "erase")
            anew.append(server.next_token(prompt, slot=0, top=TOP))
    return Twice(anew, edited)
