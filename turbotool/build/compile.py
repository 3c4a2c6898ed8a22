"""Compile the patched tree: key, configure, compile, record. After a kill the next run continues or starts over."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.build import cmake, ninja, record, stamps
from turbotool.build.compiler_error import CompilerError, advice, first_error, no_space
from turbotool.build.options import build_commit
from turbotool.build.plan import BuildPlan
from turbotool.build.record import BuildRecord, Built, BuiltFrom, UsedTool
from turbotool.build.tools import Candidate
from turbotool.errors import CompileFailed, ConfigureFailed, DocumentError, NoSpace
from turbotool.system import process
from turbotool.system.documents import encode
from turbotool.system.files import need_space, out_of_space, write_file
from turbotool.system.git import Git
from turbotool.system.machine import usable_cpus
from turbotool.system.session import Session

MIB = 1 << 20
# A build after the first replaces most of what it writes.
AGAIN_BYTES = 200 * MIB
LEFT_OUT = re.compile(r"^-- (?P<what>left out: .+)$", re.MULTILINE)  # as the series' CMake code says it


@dataclass(frozen=True)
class BuildOutcome:
    """A finished build. `reasons` say why it was not `cached`; `seconds` is wall time."""

    cached: bool
    reasons: tuple[str, ...]
    bin_dir: Path
    log: Path
    tree: str
    backend: str
    seconds: float
    outputs: tuple[Built, ...]
    notes: tuple[str, ...]


def pending(plan: BuildPlan) -> list[str]:
    """Why there is something to do; empty if the folder already holds this very build."""
    moved = cmake.moved(plan.folder, plan.state)
    if moved:
        return [moved]
    try:
        last = record.read_record(plan.folder)
    except DocumentError as error:
        return [error.message]
    return record.stale_reasons(last, plan.key, plan.inputs, plan.folder)


def build(plan: BuildPlan, session: Session) -> BuildOutcome:
    """Bring the build folder to `plan`. The caller holds the work lock, whose descriptors `keep` the compilers inherit.

    Raises ConfigureFailed, CompileFailed, NoSpace, Interrupted.
    """
    started = time.monotonic()
    reasons = pending(plan)
    old = record.last_record(plan.folder)
    if not reasons and old:
        return outcome(plan, old.outputs, (), old.notes, started)
    session.out.say(f"building: {'; '.join(reasons)}")
    need_space(plan.folder, plan.request.backend.disk_bytes if old is None else AGAIN_BYTES, "a build")
    rotate(plan.log)
    try:
        prepare(plan, session)
        notes = (*plan.request.backend.notes, *configure(plan, session))
        for note in notes:
            session.out.say(f"note: {note}")
        compile_targets(plan, session)
        outputs = finish(plan, old, notes, time.monotonic() - started)
    except OSError as error:
        raise out_of_space(error, plan.folder) from error
    return outcome(plan, outputs, tuple(reasons), notes, started)


def outcome(
    plan: BuildPlan, outputs: tuple[Built, ...], reasons: tuple[str, ...], notes: tuple[str, ...], started: float
) -> BuildOutcome:
    name = plan.request.backend.name
    seconds = time.monotonic() - started
    return BuildOutcome(not reasons, reasons, plan.bin_dir, plan.log, plan.source.tree, name, seconds, outputs, notes)


def rotate(log: Path) -> None:
    """Keep the log of the run before as `<log>.1`."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))


def prepare(plan: BuildPlan, session: Session) -> None:
    """Remove what an interruption, a move or other options left behind, and set the times that ninja compares."""
    reason = cmake.clean(plan.folder, plan.state)
    if reason:
        session.out.detail(f"configuring afresh: {reason}")
    plan.folder.mkdir(parents=True, exist_ok=True)
    if plan.toolkit:
        plan.toolkit.assemble()
    changed = stamps.settle(Git(plan.source.path, session.keep), plan.source.tree, plan.folder)
    session.out.detail(f"{changed} source files are new to this build folder")


def configure(plan: BuildPlan, session: Session) -> tuple[str, ...]:
    """Run CMake. Returns what it says that it leaves out."""
    session.out.say("configuring")
    (plan.folder / cmake.STATE).unlink(missing_ok=True)
    words = cmake.command(plan.source.path, plan.folder, plan.chain, plan.options)
    done = process.run(words, cwd=plan.folder, env=plan.env, log=plan.log, check=False, keep=session.keep)
    if done.returncode != 0:
        raise_if_full(done.output, plan)
        error = first_error(done.output)
        what = str(error) if error else f"{process.describe_exit(done.returncode)}\n{done.tail}"
        hint = f"turbotool doctor says what is missing; the whole output is in {plan.log}"
        raise ConfigureFailed(f"CMake stopped: {what}\nlog: {plan.log}", hint=hint)
    write_file(plan.folder / cmake.STATE, encode(plan.state))
    return tuple(match["what"] for match in LEFT_OUT.finditer(done.output))


def compile_targets(plan: BuildPlan, session: Session) -> None:
    """Run ninja on the plan's targets, with a bar. Raises CompileFailed with the first error, NoSpace, Interrupted."""
    jobs = plan.request.jobs or usable_cpus()
    words = [plan.chain.ninja.path, "-j", str(jobs), *plan.request.targets]
    keep = () if start_sccache(plan) else session.keep  # the daemon would hold the lock for ever
    with session.out.progress("compiling") as show:

        def on_line(line: str) -> None:
            step = ninja.parse_step(line)
            if step:
                show(step.done, step.total, step.what)

        done = process.run(words, cwd=plan.folder, env=plan.env, log=plan.log, check=False, on_line=on_line, keep=keep)
    if done.returncode != 0:
        raise_if_full(done.output, plan)
        error = located(first_error(done.output), plan)
        message = str(error) if error else f"ninja ended with {process.describe_exit(done.returncode)}\n{done.tail}"
        raise CompileFailed(f"compiling stopped: {message}\nlog: {plan.log}", hint=advice(error, str(plan.log)))


def start_sccache(plan: BuildPlan) -> bool:
    """Start sccache's daemon, if that is the launcher: started by a compile it would inherit the work lock."""
    launcher = plan.chain.launcher
    if launcher is None or Path(launcher.path).stem != "sccache":
        return False
    process.run([launcher.path, "--start-server"], cwd=plan.folder, env=plan.env, check=False, timeout=30)
    return True


def located(error: CompilerError | None, plan: BuildPlan) -> CompilerError | None:
    """The error with its file relative to the vendored tree, where it lies there."""
    if error is None or error.file is None:
        return error
    path = Path(os.path.normpath(plan.folder / error.file))
    inside = path.is_relative_to(plan.source.path)
    return CompilerError(str(path.relative_to(plan.source.path)) if inside else error.file, error.line, error.message)


def raise_if_full(output: str, plan: BuildPlan) -> None:
    line = no_space(output)
    if line:
        raise NoSpace(
            f"the disk is full: {line}\nlog: {plan.log}", hint="free some space on that disk, then turbotool build"
        )


def finish(plan: BuildPlan, old: BuildRecord | None, notes: tuple[str, ...], seconds: float) -> tuple[Built, ...]:
    """Hash what was built and write build.json, last."""
    remove_leftovers(plan)
    outputs, links = record.scan_outputs(plan.bin_dir, old.outputs if old else ())
    missing = [target for target in plan.request.targets if not produced(target, outputs)]
    if missing:
        raise CompileFailed(
            f"ninja succeeded but bin/ has no {', '.join(missing)}\nlog: {plan.log}", hint=f"read {plan.log}"
        )
    write_file(plan.folder / record.NAME, encode(describe(plan, outputs, links, notes, seconds)))
    return outputs


def describe(
    plan: BuildPlan, outputs: tuple[Built, ...], links: Mapping[str, str], notes: tuple[str, ...], seconds: float
) -> BuildRecord:
    """The record of a build that is finished; `seconds` is the wall time that it took."""
    upstream = plan.source.upstream
    return BuildRecord(
        key=plan.key,
        inputs=dict(plan.inputs),
        backend=plan.request.backend.name,
        tree=plan.source.tree,
        series=plan.source.series,
        lock=BuiltFrom(upstream.commit, upstream.source, upstream.tag, upstream.tree),
        reports=build_commit(plan.source),
        tools={name: UsedTool(tool.path, tool.version, tool.banner) for name, tool in used_tools(plan).items()},
        options=dict(plan.options),
        targets=plan.request.targets,
        asked=plan.request.asked,
        outputs=outputs,
        links=dict(links),
        run_env=dict(plan.request.backend.run_env),
        notes=notes,
        seconds=round(seconds, 2),
        log=os.path.relpath(plan.log, plan.folder),
    )


def produced(target: str, outputs: Sequence[Built]) -> bool:
    """False if `target` is a program of llama.cpp whose file is missing; a user's --target may be a library."""
    return not target.startswith(("llama-", "test-")) or any(
        output.name in (target, f"{target}.exe") for output in outputs
    )


def used_tools(plan: BuildPlan) -> dict[str, Candidate]:
    """The programs that the build takes, by what they are for."""
    chain = plan.chain
    every = {
        "cmake": chain.cmake,
        "ninja": chain.ninja,
        "c": chain.c,
        "c++": chain.cxx,
        "launcher": chain.launcher,
        "nvcc": chain.nvcc,
    }
    return {name: tool for name, tool in every.items() if tool}


def remove_leftovers(plan: BuildPlan) -> None:
    """Remove programs and libraries in bin/ that today's targets do not consist of: they come from another tree."""
    words = [plan.chain.ninja.path, "-t", "inputs", *plan.request.targets]
    done = process.run(words, cwd=plan.folder, env=plan.env, check=False, merge_stderr=False)
    ours = ninja.products(done.output) if done.returncode == 0 else set()
    if not ours:
        return  # a ninja that is too old to say
    for path in plan.bin_dir.iterdir():
        if path.name not in ours and path.resolve().name not in ours and (path.is_symlink() or record.is_product(path)):
            path.unlink()
