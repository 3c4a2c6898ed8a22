"""What people do with a server: many clients on one cache, a restart, a model that drafts, embeddings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model, link_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration, cache_name, can_gain
from turbotool.kv.effective import parse_effective
from turbotool.programs.runner import Runner
from turbotool.programs.server import Continuation, Prediction, Server, Setup, serve
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.likeness import Twice, likeness
from turbotool.verify.checks.quality import TURBO4

TURBO2 = CachePair("turbo2", "turbo2")
PASSAGE = "The history of the city begins with a small harbour on the northern coast. In the early years"
CONTINUED = 24  # tokens that are generated
CALIBRATED = Setup(calibration=AUTO)

# Tokens of the prompts of three clients that share CELLS. The second leaves, and who comes instead has more than fits
# in the gap or behind the others, so that its cells are not neighbours. At the end all of them fit at once.
CELLS = 1024
SHARED = Setup(3, CELLS, unified=True)
FIRST, GONE, THIRD, LATER = 290, 220, 270, 270
ROUNDS, STEP = 3, 16  # each client then adds so many tokens to its prompt, again and again
CHARACTERS = 4000  # of the text, which hold as many tokens
TOP = 200


def shared_cells(context: Context) -> CheckOutcome:
    """Three clients on one stream of scattered cells get the answers that each gets alone, but for noise."""
    found = likeness(_alone_and_shared(context, F16), _alone_and_shared(context, TURBO4))
    return CheckOutcome(found.ok, found.turbo4, found.bound, f"from each client alone, {found}")


def _alone_and_shared(context: Context, pair: CachePair) -> Twice:
    """What three clients are answered. Raises BinaryFailed if a prompt that is there is computed again."""
    with serve(context.runner, context.model, pair, name=f"alone-{pair.k}", setup=Setup(1, CELLS)) as server:
        first, gone, third, later = _prompts(context, server)
        alone = [server.next_token(prompt, slot=0, top=TOP) for growing in (first, later, third) for prompt in growing]
    with serve(context.runner, context.model, pair, name=f"shared-{pair.k}", setup=SHARED) as server:
        _at_once(server, (first[0], gone[0], third[0]))
        server.slot(1, "erase")
        rounds = [_at_once(server, prompts) for prompts in zip(first, later, third, strict=True)]
    used = [one.cached for one in rounds[0]]
    if used != [FIRST - 1, 0, THIRD - 1]:
        raise BinaryFailed(f"{pair}: of the prompts that were there {used} tokens were used", how="no reuse")
    return Twice(alone, [one for client in zip(*rounds, strict=True) for one in client])


def _prompts(context: Context, server: Server) -> list[list[str]]:
    """Growing texts from different places of the corpus."""
    text = context.text.path.read_text(encoding="utf-8")
    lengths = (FIRST, GONE, THIRD, LATER)
    step = len(text) // len(lengths)
    places = [text[number * step :][:CHARACTERS] for number in range(len(lengths))]
    return [
        [server.first(place, n + times * STEP) for times in range(ROUNDS + 1)]
        for place, n in zip(places, lengths, strict=True)
    ]


def _at_once(server: Server, prompts: Sequence[str]) -> list[Prediction]:
    """What follows each prompt, in the slot of its place, computed together."""
    with ThreadPoolExecutor(len(prompts)) as clients:
        asked = [clients.submit(server.next_token, prompt, slot=slot, top=TOP) for slot, prompt in enumerate(prompts)]
        return [one.result() for one in asked]


SAVED_SLOT = "before-the-kill.bin"
# caches that cannot read what was saved
OTHERS = ((TURBO4, UNCALIBRATED), (TURBO2, AUTO), (F16, UNCALIBRATED))
REASON = re.compile(r" E \w+: (the state was saved with .*)")


def killed_and_restored(context: Context) -> CheckOutcome:
    """A slot that was saved before its server was killed continues in the next one, and in no other kind of cache."""
    with serve(context.runner, context.model, TURBO4, name="killed", setup=CALIBRATED) as server:
        server.complete(PASSAGE, slot=0, n=0)
        saved = int(server.slot(0, "save", SAVED_SLOT).get("n_saved") or 0)
        before = server.complete(PASSAGE, slot=0, n=CONTINUED)
        server.kill()
    with serve(context.runner, context.model, TURBO4, name="restarted", setup=CALIBRATED) as server:
        restored = int(server.slot(0, "restore", SAVED_SLOT).get("n_restored") or 0)
        after = server.complete(PASSAGE, slot=0, n=CONTINUED)
    faults = []
    if not 0 < saved == restored:
        faults.append(f"saved {saved} tokens, restored {restored}")
    if after.cached < saved - 1:
        faults.append(f"only {after.cached} of {saved} restored tokens were used")
    faults += _otherwise(before, after)
    refused = {cache_name(*other): _refusal(context, *other) for other in OTHERS}
    faults += [f"{name} reads it, or does not say why not" for name, reason in refused.items() if not reason]
    detail = "; ".join(faults) or f"refused: {'; '.join(f'{name}: {reason}' for name, reason in refused.items())}"
    return CheckOutcome(not faults, restored, f"{saved} tokens, the same continuation, refused elsewhere", detail)


def _refusal(context: Context, pair: CachePair, calibration: Calibration) -> str:
    """Why a server with that cache does not read the saved slot; empty if it reads it, or does not say."""
    with serve(context.runner, context.model, pair, name="other", setup=Setup(calibration=calibration)) as server:
        try:
            server.slot(0, "restore", SAVED_SLOT)
        except BinaryFailed as error:
            if error.how != "HTTP 400":
                raise
        else:
            return ""
        server.complete(PASSAGE, slot=0, n=1)  # and it goes on serving
        reasons = REASON.findall(server.log.read_text(encoding="utf-8", errors="replace"))
    return str(reasons[0]) if reasons else ""


@dataclass(frozen=True)
class _Origin:
    source: str
    hash: str


def measured_at_start(context: Context) -> CheckOutcome:
    """A server that finds no calibration measures one before it serves; the next one finds it, and answers alike."""
    bound = "measured, then found; the same answers"
    if context.model.keys.embedded:
        return CheckOutcome(False, None, bound, "the model holds its calibration", skipped=True)
    with TemporaryDirectory(prefix="alone-", dir=context.runner.work) as folder:
        runner = replace(context.runner, kept=Path(folder) / "kept")
        alone = replace(context.model, path=link_model(context.model.path, Path(folder)))
        (first, before), (second, after) = (_calibrated(runner, alone, name) for name in ("measures", "finds"))
    faults = []
    if "measured on" not in first.source:
        faults.append(f"the first has its calibration from '{first.source}'")
    if "measured on" in second.source:
        faults.append(f"the second has it from '{second.source}'")
    if first.hash != second.hash:
        faults.append(f"hash {second.hash}, was {first.hash}")
    faults += _otherwise(before, after)
    return CheckOutcome(not faults, first.hash, bound, "; ".join(faults) or f"{first.source}, then {second.source}")


def _calibrated(runner: Runner, model: Model, name: str) -> tuple[_Origin, Continuation]:
    """What a server of one slot calibrates with, and how it goes on."""
    with serve(runner, model, TURBO4, name=name, setup=replace(CALIBRATED, slots=1)) as server:
        answer = server.complete(PASSAGE, slot=0, n=CONTINUED)
        found = parse_effective(server.log.read_text(encoding="utf-8", errors="replace")).in_force
    return (_Origin(found[-1].source or "", found[-1].hash or "") if found else _Origin("nowhere", "")), answer


def _otherwise(before: Continuation, after: Continuation) -> list[str]:
    """A line if what follows the passage is not the same to the bit."""
    if after.tokens == before.tokens and len(after.tokens) == CONTINUED:
        return []
    return [f"it continues with '{after.text}', was '{before.text}'"]


DRAFTED = 48
LEAST_ACCEPTED = 0.9  # of the tokens that the model drafts for itself, from the same kind of cache
MOST_TIE = 0.1  # nats between two tokens, of which rounding may choose either
DRAFTS = {"turbo4": LEAST_ACCEPTED, "turbo2": 0.2}  # cache of the draft -> share that must be accepted


def draft_model(context: Context) -> CheckOutcome:
    """The model drafts for itself, from a cache of its own: few guesses are wrong, and the text is the same."""
    with serve(context.runner, context.model, TURBO4, name="no-draft", setup=CALIBRATED) as server:
        alone = server.complete(PASSAGE, slot=0, n=DRAFTED)
    shares, faults = {}, []
    for name, least in DRAFTS.items():
        setup = Setup(calibration=AUTO, draft=context.model.path, draft_pair=CachePair(name, name))
        with serve(context.runner, context.model, TURBO4, name=f"draft-{name}", setup=setup) as server:
            found = server.complete(PASSAGE, slot=0, n=DRAFTED)
        shares[name] = found.accepted / max(1, found.drafted)
        if shares[name] < least:
            faults.append(f"from {name} {found.accepted} of {found.drafted} drafted tokens were accepted")
        if fault := other_text(alone, found):
            faults.append(f"with a draft from {name} {fault}")
    told = ", ".join(f"from {name} {share:.0%}" for name, share in shares.items())
    bound = f">= {LEAST_ACCEPTED:.0%} from turbo4, the text without a draft"
    return CheckOutcome(not faults, shares["turbo4"], bound, "; ".join(faults) or f"accepted: {told}")


def other_text(one: Continuation, other: Continuation) -> str:
    """How a greedy continuation is not the same; empty if it is, or if they part at a tie."""
    if len(one.tokens) != len(other.tokens):
        return f"there are {len(other.tokens)} tokens, not {len(one.tokens)}"
    for number, ((a, _), (b, _), lead) in enumerate(zip(one.tokens, other.tokens, one.leads, strict=True)):
        if a != b:
            return "" if lead <= MOST_TIE else f"token {number + 1} is {b}, not {a}, which leads by {lead:.2f} nats"
    return ""


# Cosine with what an f16 cache gives: the least of the texts. Measured where the last token is taken, on two builds:
# q8_0 .9996 and .9991, turbo4 .9966 and .9982; the mean over all tokens has .9997 with turbo4.
LEAST_COSINE = {"q8_0": 0.995, "turbo4": 0.985}
LEAST_OTHER = 0.95  # of a model that was not measured
POOLINGS = ("mean", "last")
TEXTS = 4
TEXT = 600  # characters


def embeddings(context: Context) -> CheckOutcome:
    """Embeddings of a model that keeps a cache point where they point with an f16 cache."""
    least: dict[str, float] = {}
    for pooling in POOLINGS:
        base = _embedded(context, F16, pooling)
        for name in LEAST_COSINE:
            found = _embedded(context, CachePair(name, name), pooling)
            least[f"{name} {pooling}"] = min(cosine(a, b) for a, b in zip(base, found, strict=True))
    bounds = LEAST_COSINE if context.is_default else dict.fromkeys(LEAST_COSINE, LEAST_OTHER)
    faults = [f"{name} {value:.4f}" for name, value in least.items() if not value >= bounds[name.split()[0]]]
    bound = f"cosine >= {bounds['turbo4']:g} for turbo4"
    worst = min(value for name, value in least.items() if name.startswith("turbo4"))
    told = ", ".join(f"{name} {value:.5f}" for name, value in least.items())
    return CheckOutcome(not faults, worst, bound, "; ".join(faults) or told)


def _embedded(context: Context, pair: CachePair, pooling: str) -> list[list[float]]:
    text = context.text.path.read_text(encoding="utf-8")
    step = len(text) // TEXTS
    words = ("--embeddings", "--pooling", pooling)
    setup = Setup(calibration=AUTO if can_gain(pair) else UNCALIBRATED, words=words)
    with serve(context.runner, context.model, pair, name=f"embed-{pair.k}", setup=setup) as server:
        return [server.embed(text[number * step :][:TEXT]) for number in range(TEXTS)]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of the angle between two vectors; NaN if one of them is zero or not finite."""
    size = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / size if size else math.nan
