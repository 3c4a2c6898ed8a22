"""Every name of a cache type: read from --help, and each way in which a program may not know the turbo types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from known_model import known_model

from turbotool.kv.cachetype import TURBO
from turbotool.programs.binaries import Binaries
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.system.process import Completed
from turbotool.verify.check import Check, Context
from turbotool.verify.checks.spellings import Option, type_options
from turbotool.verify.registry import CHECKS
from turbotool.verify.verification import run_check

HELP = """----- common params -----

-c,    --ctx-size N                     size of the prompt context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0,
                                        turbo2, turbo3, turbo4
                                        (default: f16)
                                        (env: LLAMA_ARG_CACHE_TYPE_K)
-ctv,  --cache-type-v TYPE              KV cache data type for V
                                        allowed values: f32, f16, q8_0, turbo2, turbo3, turbo4
                                        (env: LLAMA_ARG_CACHE_TYPE_V)
--spec-draft-type-k, -ctkd TYPE
                                        KV cache data type for K for the draft model
                                        allowed values: f32, f16, q8_0, turbo2, turbo3, turbo4
                                        (env: LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K)
"""
NEW = "--cache-type-z TYPE                     KV cache data type of something new: f16, q8_0\n"
LOG = (
    "x I llama_context: n_ctx                 = 256\n"
    "x I llama_kv_cache: size =    1.00 MiB (   256 cells,  30 layers,  1/1 seqs), "
    "K ({k}):    0.50 MiB, V ({v}):    0.50 MiB\n"
)
NAMES = ("-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "--spec-draft-type-k", "-ctkd", "--cache-type-z")
VARIABLE = "LLAMA_ARG_"


class Programs:
    """What takes the place of `Runner.plain`: programs that know the types, but for one trouble."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble

    def plain(
        self, name: str, arguments: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 0
    ) -> Completed:
        words = [str(word) for word in arguments]
        if "--help" in words:
            return done(0, HELP + NEW * (self.trouble == "new-option") if self.trouble != "no-k" else HELP[:100])
        given = [(word, words[i + 1]) for i, word in enumerate(words) if word in NAMES]
        given += [(word, value) for word, value in (env or {}).items() if word.startswith(VARIABLE)]
        for word, value in given:
            for one in value.split(","):
                if one.lower() not in TURBO if self.trouble == "takes-capitals" else one not in TURBO:
                    return self.refused(name, word, one)
                if self.trouble == "not-for-drafts" and word == "-ctkd":
                    return self.refused(name, word, one)
        sides = {"k": "turbo4", "v": "f16" if self.trouble == "variable-ignored" else "turbo2"}
        return done(0, LOG.format(**sides))

    def refused(self, name: str, word: str, value: str) -> Completed:
        if self.trouble == "takes-anything" and word == "--cache-type-v":
            return done(0, "")
        if self.trouble == "crashes" and word == "-ctv":
            return done(-11, "")
        nameless = self.trouble == "nameless" and word.startswith(VARIABLE)
        nameless = nameless or (self.trouble == "bench-nameless" and name == "llama-bench")
        return done(1, f"unsupported cache type: {value}" + ("" if nameless else f", allowed values: {TURBO}"))


def done(code: int, output: str) -> Completed:
    return Completed(("x",), Path(), 0.0, code, output, None)


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str = "") -> Check:
    programs = Programs(trouble)
    monkeypatch.setattr(Runner, "plain", lambda _, *given, **named: programs.plain(*given, **named))
    context = Context(
        Runner(Binaries(folder), folder, 2), known_model(), Text(folder / "x"), Output(quiet=True), quick=True
    )
    return run_check(next(spec for spec in CHECKS if spec.name == "every-spelling"), context)


def test_options_are_read_with_each_name_and_their_variable() -> None:
    found = type_options(HELP + NEW)
    assert found[0] == Option(("-ctk", "--cache-type-k"), "LLAMA_ARG_CACHE_TYPE_K", listed=True)
    assert found[2] == Option(("--spec-draft-type-k", "-ctkd"), "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", listed=True)
    assert found[3] == Option(("--cache-type-z",), None, listed=False)
    assert len(found) == 4


def test_programs_that_take_and_refuse_by_name_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(tmp_path, monkeypatch)
    assert (found.ok, found.detail) == (True, "")
    assert found.value == 4 * (6 + 3)  # programs, and in each the names and the variables


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("new-option", "llama-server --cache-type-z: --help lists no turbo types"),
        ("no-k", "llama-cli: --help has no -ctk or -ctv"),
        ("not-for-drafts", "llama-server does not take one of -ctk, --cache-type-k, -ctv"),
        ("takes-anything", "llama-perplexity --cache-type-v turbo9 is not refused"),
        ("takes-capitals", "llama-completion -ctk TURBO4 is not refused"),
        ("crashes", "llama-cli -ctv turbo9 is not refused"),
        ("nameless", "LLAMA_ARG_CACHE_TYPE_K=turbo9 llama-cli: the error does not name turbo2, turbo3, turbo4"),
        ("bench-nameless", "llama-bench -ctk turbo2,turbo9: the error does not name turbo2, turbo3, turbo4"),
        ("variable-ignored", "variables ask for turbo4/turbo2, the cache is {('turbo4', 'f16')}"),
    ],
)
def test_what_a_program_does_not_know_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, says: str
) -> None:
    found = checked(tmp_path, monkeypatch, trouble)
    assert not found.ok
    assert says in found.detail
