"""Greedy, deterministic generation with llama-cli (one chat turn) and llama-completion (raw text)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.runner import Run, Runner, last_lines
from turbotool.system.lines import COLOUR, whole_lines

GREEDY = ("--temp", "0", "--seed", "1", "--simple-io", "--log-colors", "off", "-co", "off")
# Small instruct models answer an unfinished sentence with small talk unless they are told what to do with it.
SYSTEM = "Complete the sentence."
EVALUATED = re.compile(r"common_perf_print: +eval time = .*/ +(\d+) runs")
LOG = re.compile(r"\d{1,9}\.\d\d\.\d{3}\.\d{3} [DIWET] ")  # a timestamp and a level: where a log message begins


@dataclass(frozen=True)
class Generation:
    """Generated text, without the prompt, and how many tokens it has (None where the program does not say)."""

    text: str
    tokens: int | None
    run: Run


def chat(
    runner: Runner,
    model: Model,
    pair: CachePair,
    prompt: str,
    *,
    n: int = 32,
    knobs: Knobs = OFF,
    calibration: Calibration = UNCALIBRATED,
) -> Generation:
    """The answer of llama-cli to one prompt: a single turn, no input, at most `n` tokens."""
    arguments = ("-c", "512", "-n", str(n), "-st", "-sys", SYSTEM, "-p", prompt, *GREEDY)
    # flash attention is left to the program, as a user would: it must turn it on by itself where the cache needs it
    result = runner.cached("llama-cli", model, pair, arguments, knobs=knobs, calibration=calibration, flash="auto")
    return Generation(parse_answer(result.done.output, prompt), None, result)


def parse_answer(output: str, prompt: str) -> str:
    """What llama-cli printed between the echoed prompt and its speed line. Raises BinaryFailed if there is none."""
    text = "\n".join(without_log(line) for line in output.split("\n"))
    start = text.rfind(f"> {prompt}")
    end = text.find("[ Prompt:", max(start, 0))
    if start < 0 or end < 0:
        raise BinaryFailed(f"llama-cli printed no answer to '{prompt}'\n{last_lines(output)}", how="no answer")
    return text[start + len(prompt) + 2 : end].strip()


def without_log(line: str) -> str:
    """A line of output without the log message that follows text on it, or that it is."""
    return LOG.split(COLOUR.sub("", line), maxsplit=1)[0]


def complete(
    runner: Runner,
    model: Model,
    pair: CachePair,
    prompt: str,
    *,
    n: int,
    ctx: int,
    shift: bool = False,
    repeat_penalty: float = 1.0,
    knobs: Knobs = OFF,
) -> Generation:
    """The continuation by llama-completion: exactly `n` tokens unless the context fills up and `shift` is off."""
    size: tuple[str, ...] = ("-c", str(ctx), "-n", str(n), "--repeat-penalty", f"{repeat_penalty:g}")
    size += ("--context-shift",) if shift else ()
    arguments = (*size, "-no-cnv", "--no-display-prompt", "--ignore-eos", "-p", prompt, *GREEDY)
    result = runner.cached("llama-completion", model, pair, arguments, knobs=knobs)
    return Generation(parse_completion(result.done.output), parse_tokens(result.done.output), result)


def parse_tokens(log: str) -> int | None:
    """Generated tokens according to the timing summary (the first one comes with the prompt's own evaluation)."""
    runs = [int(match[1]) for line in whole_lines(log) if (match := EVALUATED.search(line))]
    return runs[-1] + 1 if runs else None


def parse_completion(output: str) -> str:
    """The text between the last log line before generation and the timing summary; empty if either is missing."""
    lines = output.split("\n")
    first = next((i for i, line in enumerate(lines) if "generate: n_ctx =" in line), len(lines))
    last = next((i for i, line in enumerate(lines) if "common_perf_print:" in line), 0)
    return "\n".join(without_log(line) for line in lines[first + 1 : last + 1]).strip()
