"""A llama-server in Python for the checks that drive one: it predicts by a rule, and breaks it where it is told to."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turbotool.errors import BinaryFailed
from turbotool.kv.cachetype import F16, CachePair
from turbotool.programs.server import PLAIN, Continuation, Prediction, Setup

TOKENS = 4  # of a prediction
CALIBRATED = "kv_calibration: on, K turbo4, 30 layers, hash {hash}, for 512 positions ({source})\n"
REFUSED = "x E llama_kv_state_check: the state was saved with K turbo4, this context stores K {k}: -ctk turbo4\n"


@dataclass
class FakeServer:
    """A server with a cache; a token is a word. `noise` in nats tells its predictions from those of an f16 cache.

    `trouble` breaks one rule.
    """

    pair: CachePair
    setup: Setup
    noise: float
    log: Path
    trouble: str
    files: dict[str, tuple[CachePair, Setup, int]]
    cached: dict[int, list[str]] = field(default_factory=dict)

    def count(self, text: str) -> int:
        return len(text.split())

    def first(self, text: str, n: int) -> str:
        return " ".join(text.split()[:n])

    def _used(self, prompt: str, slot: int) -> int:
        """Words that are cached, moved ones included if there is nothing new before them."""
        words, there = prompt.split(), self.cached.get(slot, [])
        same = 0
        while same < min(len(words), len(there)) and words[same] == there[same]:
            same += 1
        moved = len(words) - same if words[same:] and words[same:] == there[len(there) - len(words) + same :] else 0
        self.cached[slot] = words
        used = same + (moved if self.setup.reuse and self.trouble != "never-moves" else 0)
        return 0 if self.trouble == "forgets" else min(used, len(words) - 1)

    def next_token(self, prompt: str, *, slot: int, top: int) -> Prediction:
        used = self._used(prompt, slot)
        off = self.noise + (5.0 if self.trouble == "leaks" and self.setup.unified else 0.0)
        off += 5.0 if self.trouble == "stale" and used and slot == 0 and "bread" in prompt else 0.0
        weights = [math.exp(-number + (off if number == len(prompt) % TOKENS else 0.0)) for number in range(TOKENS)]
        return Prediction({n: math.log(weight / sum(weights)) for n, weight in enumerate(weights)}, used)

    def complete(self, prompt: str, *, slot: int, n: int) -> Continuation:
        used, drafts = self._used(prompt, slot), self.setup.draft is not None
        odd = drafts and self.trouble in ("another-text", "at-a-tie")
        odd = odd or (self.trouble == "continues-otherwise" and self.log.stem in ("restarted", "finds"))
        tokens = tuple((number + (odd and number == 3), -0.5) for number in range(n))
        leads = tuple(0.01 if self.trouble == "at-a-tie" and number == 3 else 2.0 for number in range(n))
        drafted = 12 if drafts else 0
        accepted = 1 if self.trouble == "guesses-badly" else drafted
        if self.trouble == "stops" and drafts:
            tokens = tokens[:-1]
        return Continuation("text", tokens, used, slot, leads, drafted, accepted)

    def embed(self, text: str) -> list[float]:
        turned = self.noise * (30 if self.trouble == "turns" and self.pair.k == "turbo4" else 1)
        if self.trouble == "nothing":
            return [0.0, 0.0]
        return [math.cos(len(text) + turned), math.sin(len(text) + turned)]

    def slot(self, number: int, action: str, filename: str = "") -> dict[str, Any]:
        if action == "erase":
            self.cached.pop(number, None)
        if action == "save":
            self.files[filename] = (self.pair, self.setup, len(self.cached[number]))
            return {"n_saved": len(self.cached[number])}
        if action == "restore":
            pair, setup, count = self.files[filename]
            if (pair, setup.calibration) != (self.pair, self.setup.calibration) and self.trouble != "reads-anything":
                self.log.write_text("an error" if self.trouble == "silent" else REFUSED.format(k=self.pair.k))
                raise BinaryFailed("refused", how="signal SIGABRT" if self.trouble == "dies" else "HTTP 400")
            self.cached[number] = ["?"] if self.trouble == "half" else PASSAGE_WORDS[:count]
            return {"n_restored": len(self.cached[number])}
        return {}

    def kill(self) -> None:
        self.cached.clear()


PASSAGE_WORDS: list[str] = []


def fake_serve(folder: Path, trouble: str = "", noise: float = 0.05) -> Callable[..., Any]:
    """What takes the place of `serve`: servers that share the files they save."""
    files: dict[str, tuple[CachePair, Setup, int]] = {}
    started: list[str] = []

    @contextlib.contextmanager
    def serve(_: object, __: object, pair: CachePair, *, name: str, setup: Setup = PLAIN) -> Iterator[FakeServer]:
        log = folder / f"{name}.log"
        again = bool(started) and trouble != "measures-again"
        found = "/kept/0123.gguf" if again or trouble == "finds-one" else "measured on 448 tokens in 1.20 s"
        number = len(started) if trouble == "another-hash" else 0
        calibrated = setup.calibration.is_auto and trouble != "measures-nothing"
        log.write_text(CALIBRATED.format(hash=f"{number:016x}", source=found) if calibrated else "")
        started.append(name)
        yield FakeServer(pair, setup, 0.0 if pair == F16 else noise, log, trouble, files)

    return serve
