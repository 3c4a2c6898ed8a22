"""Programs start, say which build they are, list the turbo types, and refuse what they must refuse."""

from __future__ import annotations

import re
from pathlib import Path

from turbotool.errors import BinaryFailed, ModelError
from turbotool.inputs.gguf import read_header
from turbotool.kv.cachetype import TURBO
from turbotool.programs.binaries import TOOLS, TREE_DIGITS
from turbotool.system.process import describe_exit
from turbotool.verify.check import CheckOutcome, Context

VERSION = re.compile(r"^version: .*\bcommit ([\w.-]+)\)?", re.MULTILINE)
LISTING = ("llama-cli", "llama-server", "llama-perplexity")


def binaries_start(context: Context) -> CheckOutcome:
    """Every program is there and starts; those with --version report the build that is being verified."""
    binaries = context.runner.binaries
    missing = [name for name in binaries.programs if not binaries.path(name).is_file()]
    reported = {}
    for name in TOOLS:
        if name not in missing:
            match = VERSION.search(context.runner.good(name, ["--version"], timeout=60).output)
            reported[name] = match[1] if match else "no version"
    expected = binaries.tree[:TREE_DIGITS]
    wrong = [
        f"{name} reports {commit}"
        for name, commit in reported.items()
        if expected not in commit or commit == "no version"
    ]
    detail = "; ".join([*(f"{name} is missing from {binaries.bin_dir}" for name in missing), *wrong])
    if not expected:
        detail = detail or "no build record names a tree, so the reported commit was not compared"
    bound = (
        f"all {len(binaries.programs)} present, commit contains {expected}"
        if expected
        else f"all {len(binaries.programs)} present"
    )
    return CheckOutcome(not missing and not wrong, ", ".join(sorted(set(reported.values()))), bound, detail)


def types_listed(context: Context) -> CheckOutcome:
    """--help lists the turbo types; llama-bench, whose help lists no types upstream, must take them and say so."""
    helps = {name: context.runner.plain(name, ["--help"], timeout=60).output for name in LISTING}
    lacking = [f"{name}: {turbo}" for name in LISTING for turbo in TURBO if not _is_word(turbo, helps[name])]
    shape: list[str | Path] = ["-m", context.model.path, "-p", "8", "-n", "0", "-r", "1", "-fa", "on", "-o", "json"]
    types = ["-ctk", ",".join(TURBO), "-ctv", TURBO[-1], "-t", str(context.runner.threads)]
    done = context.runner.plain("llama-bench", [*shape, *types])
    taken = re.findall(r'"type_k": "(\w+)"', done.output)
    lacking += [f"llama-bench: {turbo}" for turbo in TURBO if turbo not in taken]
    asked = (len(LISTING) + 1) * len(TURBO)
    detail = f"missing: {', '.join(lacking)}" if lacking else ""
    return CheckOutcome(not lacking, asked - len(lacking), f"= {asked}", detail)


def _is_word(word: str, text: str) -> bool:
    return bool(re.search(rf"\b{word}\b", text))


def unknown_type_refused(context: Context) -> CheckOutcome:
    """A cache type that does not exist ends the program with an error that names it, not with a substitute."""
    arguments: list[str | Path] = ["-m", context.model.path, "-p", "x", "-n", "1", "-ctk", "turbo9", "-st"]
    done = context.runner.plain("llama-cli", arguments, timeout=60)
    named = "turbo9" in done.output
    ok = done.returncode > 0 and named
    return CheckOutcome(
        ok,
        describe_exit(done.returncode),
        "an exit status > 0 that names the type",
        "" if named else "the output does not name turbo9",
    )


def truncated_model_refused(context: Context) -> CheckOutcome:
    """A model file cut in half is refused by turbotool and by the programs, with an error and not with a crash."""
    cut = context.work / "truncated.gguf"
    size = context.model.path.stat().st_size
    try:
        with context.model.path.open("rb") as whole, cut.open("wb") as half:
            while half.tell() < size // 2 and (block := whole.read(min(1 << 20, size // 2 - half.tell()))):
                half.write(block)
        try:
            read_header(cut)
            ours = "accepted by turbotool"
        except ModelError:
            ours = ""
        done = context.runner.plain("llama-completion", ["-m", cut, "-p", "x", "-n", "1", "-no-cnv"], timeout=60)
    finally:
        cut.unlink(missing_ok=True)
    return CheckOutcome(
        done.returncode > 0 and not ours, describe_exit(done.returncode), "an exit status > 0 from both", ours
    )


def invalid_knob_refused(context: Context, variable: str, value: str) -> str:
    """Empty if a knob with this value stops the program with an error that names the variable; else what happened."""
    arguments: list[str | Path] = ["-m", context.model.path, "-p", "x", "-n", "1", "-no-cnv", "-c", "256"]
    done = context.runner.plain("llama-completion", arguments, env={variable: value}, timeout=60)
    if done.returncode == 0:
        return f"{variable}={value} was accepted"
    if done.returncode < 0:
        raise BinaryFailed(
            f"{variable}={value}: {describe_exit(done.returncode)}\n{done.tail}", how=describe_exit(done.returncode)
        )
    return "" if variable in done.output else f"{variable}={value}: the error does not name the variable"
