"""One entry that proves binaries with a real model: named checks, each with a measured value and its bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.errors import VerificationFailed
from turbotool.inputs.corpus import default_corpus, named_corpus
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import Model
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries
from turbotool.programs.devices import on_a_device
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import KEPT, Runner
from turbotool.system.files import fresh_file, remove
from turbotool.system.machine import usable_cpus
from turbotool.system.session import Session
from turbotool.verify.check import Context, Spec
from turbotool.verify.verification import Verification, select, verify

QUICK_CHUNKS = 1
FULL_CHUNKS = 4


@dataclass(frozen=True)
class Proof:
    """A verification that was made, and what it was made with. `log` holds what the programs printed."""

    verification: Verification
    binaries: Binaries
    model: Model
    text: Path
    log: Path | None
    quick: bool

    @property
    def ok(self) -> bool:
        return self.verification.ok

    @property
    def facts(self) -> dict[str, str]:
        """What was proven with what: the properties of a report."""
        return {
            "backend": self.binaries.backend,
            "bin_dir": str(self.binaries.bin_dir),
            "tree": self.binaries.tree,
            "model": str(self.model.path),
            "corpus": str(self.text),
            "log": str(self.log),
        }

    def error(self) -> VerificationFailed | None:
        """What a command that needs the proof ends with; None if every check that ran holds."""
        if self.ok:
            return None
        failed, checks = self.verification.failed, self.verification.checks
        if not failed:
            skipped = ", ".join(check.name for check in checks)
            return VerificationFailed(
                f"nothing was proven: every check was skipped: {skipped}", hint="the table says why; name other checks"
            )
        return VerificationFailed(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", hint=f"read {self.log}"
        )


def run(
    session: Session,
    *,
    backend: str = "cpu",
    bin_dir: Path | None = None,
    model: Path | None = None,
    corpus: Path | None = None,
    checks: Sequence[str] = (),
    quick: bool = False,
    wrapper: Sequence[str] = (),
) -> Proof:
    """Prove the build of a backend, made now if it is not there, or the programs in `bin_dir`.

    `model` is a GGUF file (default: the locked small model), `corpus` a UTF-8 text (default: upstream's documentation).
    `checks` are names of checks; none means all, or with `quick` those that take under a minute together. `wrapper` are
    words to put before every program. Raises what choosing and building raise, and UsageMistake for the name of a check
    that there is not; a check that fails is no error here: see `Proof.error`.

    >>> proof = run(session, quick=True)
    >>> proof.ok, [check.name for check in proof.verification.checks if not check.ok]
    """
    # what was named is looked at before a build of many minutes
    prove_these = prover(session, model=model, corpus=corpus, checks=checks, quick=quick)
    return prove_these(replace(choose_binaries(session, backend, bin_dir), wrapper=tuple(wrapper)))


def prove(
    session: Session,
    binaries: Binaries,
    model: Model,
    specs: Sequence[Spec],
    *,
    corpus: Path | None = None,
    quick: bool = False,
) -> Proof:
    """Run these checks on these programs, on the device that they would choose. The one place that proves anything."""
    chosen = on_a_device(binaries, session.out)
    context = make_context(session, chosen, model, corpus, quick=quick)
    session.out.say(f"verifying {chosen.bin_dir} with {model.path.name} ({len(specs)} checks)")
    result = verify(context, specs)
    return Proof(result, chosen, model, context.text.path, context.runner.log, quick)


def prover(
    session: Session,
    *,
    model: Path | None = None,
    corpus: Path | None = None,
    checks: Sequence[str] = (),
    quick: bool = True,
) -> Callable[[Binaries], Proof]:
    """A function that proves whatever programs it is given, as `run` does; what is named is looked at now."""
    specs = select(checks, quick)
    chosen = choose_model(session, model)
    text = named_corpus(corpus) if corpus else None
    return lambda binaries: prove(session, binaries, chosen, specs, corpus=text, quick=quick)


def make_context(session: Session, binaries: Binaries, model: Model, corpus: Path | None, *, quick: bool) -> Context:
    """What the checks work on; their programs log to a verify.log that is started anew."""
    name = f"package-{binaries.backend}" if binaries.bare else binaries.backend
    work = session.layout.builds / "verify" / name
    remove(work / KEPT)  # of programs that these have replaced
    runner = Runner(binaries, work, usable_cpus(), fresh_file(work / "verify.log"))
    chunks = QUICK_CHUNKS if quick else FULL_CHUNKS
    text = Text(corpus or default_corpus(session.layout.tree, work), ctx=512, chunks=chunks)
    return Context(runner, model, text, session.out, quick, default_text=corpus is None)
