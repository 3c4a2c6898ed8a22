"""The completion probe: three factual prompts, answered greedily by llama-cli under a cache configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from turbotool.errors import TurbotoolError, first_line
from turbotool.evaluation.cell import KEY_VERSION, Configuration, calibrated, digest
from turbotool.evaluation.measure.single import FATAL
from turbotool.evaluation.store import Store
from turbotool.evaluation.sweep import Sweep
from turbotool.programs.completion import chat
from turbotool.programs.questions import PROMPTS


@dataclass(frozen=True)
class Answer:
    """What the model said to a prompt and whether it is right; `error` says why it said nothing."""

    prompt: str
    text: str
    right: bool
    error: str | None


@dataclass(frozen=True)
class Probe:
    """The answers under one configuration."""

    configuration: Configuration
    answers: tuple[Answer, ...]

    @property
    def right(self) -> int:
        return sum(answer.right for answer in self.answers)


def probe(sweep: Sweep, store: Store, configuration: Configuration) -> Probe:
    """Ask the three prompts; answers that the store holds are not asked for again. A crash is an answer's error."""
    return Probe(configuration, tuple(_ask(sweep, store, configuration, *question) for question in PROMPTS))


def _ask(
    sweep: Sweep, store: Store, configuration: Configuration, prompt: str, is_right: Callable[[str], bool]
) -> Answer:
    try:
        text = _answer(sweep, store, configuration, prompt)
    except FATAL:
        raise
    except TurbotoolError as error:
        return Answer(prompt, "", False, first_line(error.message))
    return Answer(prompt, text, is_right(text), None)


def _answer(sweep: Sweep, store: Store, configuration: Configuration, prompt: str) -> str:
    pair = configuration.pair
    cell = {"k": pair.k, "v": pair.v, "rotation": configuration.rotation, "prompt": prompt}
    cell |= calibrated(configuration.calibration, configuration.calibration.sha256)
    key = digest({"version": KEY_VERSION, "binaries": sweep.binaries, "model": sweep.model_sha256, **cell})
    known = store.answer(key)
    if known is not None:
        return known
    asked = configuration.calibration
    text = chat(sweep.runner, sweep.model, pair, prompt, knobs=configuration.knobs, calibration=asked).text
    store.keep_answer(key, text)
    return text
