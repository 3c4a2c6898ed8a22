"""How llama-kv-calibrate is run: it measures a calibration, and puts one into a copy of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from turbotool.calibration.statistics import Statistics, read_statistics
from turbotool.errors import BinaryFailed
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import TIMEOUT, Runner, failure
from turbotool.system.process import run

PROGRAM = "llama-kv-calibrate"
SEQUENCE = re.compile(r"sequence (\d{1,9})/(\d{1,9})$")


def measure(runner: Runner, model: Path, text: Text, target: Path, step: Callable[[int], None]) -> Statistics:
    """Write a calibration to `target`, measured on `text.chunks` sequences of `text.ctx` tokens of a text.

    `step` is told how many sequences are done. Raises BinaryFailed, ToolFailed if it hangs, and Interrupted.
    """

    def watch(line: str) -> None:
        if match := SEQUENCE.match(line):
            step(int(match[1]))

    told = target.with_name("statistics.json")
    words: list[str | Path] = [
        "-m",
        model,
        "-f",
        text.path,
        "-c",
        str(text.ctx),
        "--chunks",
        str(text.chunks),
        "-o",
        target,
    ]
    _run(runner, [*words, "--stats", told, "-t", str(runner.threads)], text.timeout, watch)
    if not target.is_file():
        raise BinaryFailed(f"{PROGRAM} ended well but wrote no calibration", how="no result")
    return read_statistics(told)


def embed(runner: Runner, model: Path, calibration: Path, target: Path) -> None:
    """Write a copy of the model that holds the calibration. Raises BinaryFailed and Interrupted."""
    _run(runner, ["-m", model, "--embed", calibration, "-o", target], TIMEOUT, lambda _: None)
    if not target.is_file():
        raise BinaryFailed(f"{PROGRAM} ended well but wrote no copy of the model", how="no result")


def _run(runner: Runner, words: Sequence[str | Path], timeout: float, watch: Callable[[str], None]) -> None:
    command = [*runner.binaries.command(PROGRAM), *words]
    env = runner.environment({})
    done = run(
        command, cwd=runner.work, env=env, log=runner.log, on_line=watch, timeout=timeout, stop=runner.stop, check=False
    )
    if done.returncode != 0:
        raise failure(PROGRAM, done)
