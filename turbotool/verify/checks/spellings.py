"""Every way to name a cache type: options, variables and lists, as the programs' own --help lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.kv.cachetype import TURBO, CachePair
from turbotool.kv.effective import VERBOSE, parse_effective
from turbotool.programs.runner import failure
from turbotool.verify.check import CheckOutcome, Context

PROGRAMS = ("llama-cli", "llama-completion", "llama-perplexity", "llama-server")
HEADER = re.compile(r"(?:--?[\w-]+,?\s+)+")  # the names of an option, at the start of a line
NAME = re.compile(r"--?[\w-]+")
TYPES = re.compile(r"cache data type|\bq8_0\b")  # an option that says so is one of a cache type
VARIABLE = re.compile(r"\(env: (LLAMA_ARG_\w+)\)")
NO_TYPE = ("turbo9", TURBO[-1].upper())  # upstream takes no capitals


@dataclass(frozen=True)
class Option:
    """An option that takes a cache type: its names, the variable that stands for it, and whether its help has turbo."""

    names: tuple[str, ...]
    variable: str | None
    listed: bool


def type_options(text: str) -> list[Option]:
    """The options of a cache type in what a program prints for --help."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("-") and HEADER.match(line):
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    found = []
    for block in blocks:
        header, words = HEADER.match(block[0]), " ".join(line.strip() for line in block)
        if header and TYPES.search(words):
            variable = VARIABLE.search(words)
            listed = all(re.search(rf"\b{name}\b", words) for name in TURBO)
            found.append(Option(tuple(NAME.findall(header[0])), variable[1] if variable else None, listed))
    return found


def every_spelling(context: Context) -> CheckOutcome:
    """Each option and variable of a cache type takes the turbo types, and names them where it is given another."""
    faults, asked = [], 0
    for program in PROGRAMS:
        options = type_options(context.runner.plain(program, ["--help"], timeout=60).output)
        faults += [f"{program} {one.names[0]}: --help lists no turbo types" for one in options if not one.listed]
        names = [name for one in options for name in one.names]
        variables = [one.variable for one in options if one.variable]
        if not {"-ctk", "-ctv"} <= set(names):
            faults.append(f"{program}: --help has no -ctk or -ctv")
        asked += len(names) + len(variables)
        faults += _not_taken(context, program, names, variables) + _not_refused(context, program, names, variables)
    faults += _bench_list(context) + _not_in_force(context)
    bound = "turbo types taken and in force, others refused by name"
    return CheckOutcome(not faults, asked - len(faults), bound, "; ".join(faults))


def _not_taken(context: Context, program: str, names: Sequence[str], variables: Sequence[str]) -> list[str]:
    """Everything that a turbo type is given to at once: a program that takes it prints its version."""
    words = [word for name in names for turbo in TURBO for word in (name, turbo)]
    faults = []
    if context.runner.plain(program, [*words, "--version"], timeout=60).returncode:
        faults.append(f"{program} does not take one of {', '.join(names)} with one of {', '.join(TURBO)}")
    for turbo in TURBO:
        done = context.runner.plain(program, ["--version"], env=dict.fromkeys(variables, turbo), timeout=60)
        faults += [f"{program} does not take {turbo} from one of {', '.join(variables)}"] if done.returncode else []
    return faults


def _not_refused(context: Context, program: str, names: Sequence[str], variables: Sequence[str]) -> list[str]:
    faults = []
    for wrong in NO_TYPE:
        for name in names:
            done = context.runner.plain(program, [name, wrong, "--version"], timeout=60)
            faults += _unnamed(f"{program} {name} {wrong}", wrong, done.returncode, done.output)
        for variable in variables:
            done = context.runner.plain(program, ["--version"], env={variable: wrong}, timeout=60)
            faults += _unnamed(f"{variable}={wrong} {program}", wrong, done.returncode, done.output)
    return faults


def _unnamed(what: str, wrong: str, returncode: int, output: str) -> list[str]:
    lacking = [name for name in (wrong, *TURBO) if not re.search(rf"\b{name}\b", output)]
    if returncode <= 0:
        return [f"{what} is not refused"]
    return [f"{what}: the error does not name {', '.join(lacking)}"] if lacking else []


def _bench_list(context: Context) -> list[str]:
    """A list with one type that there is not; lists of those that there are, `types-listed` runs."""
    faults = []
    for name in ("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"):
        for wrong in NO_TYPE:
            done = context.runner.plain(
                "llama-bench", ["-m", context.model.path, name, f"{TURBO[0]},{wrong}"], timeout=60
            )
            faults += _unnamed(f"llama-bench {name} {TURBO[0]},{wrong}", wrong, done.returncode, done.output)
    return faults


def _not_in_force(context: Context) -> list[str]:
    """Variables alone, one type for each side."""
    pair = CachePair(TURBO[-1], TURBO[0])
    env = {"LLAMA_ARG_CACHE_TYPE_K": pair.k, "LLAMA_ARG_CACHE_TYPE_V": pair.v}
    shape = ("-t", str(context.runner.threads), "-c", "256", "-n", "1", "-no-cnv", "-p", "x")
    words: list[str | Path] = ["-m", context.model.path, *shape, *VERBOSE]
    done = context.runner.plain("llama-completion", words, env=env, timeout=120)
    if done.returncode:
        raise failure("llama-completion", done)
    caches = {(cache.k, cache.v) for cache in parse_effective(done.output).caches}
    return [] if caches == {(pair.k, pair.v)} else [f"variables ask for {pair}, the cache is {caches}"]
