"""From the lock to binaries: the patched tree of the series, built. `turbotool build` and `verify` start with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from turbotool.apply import ensure_applied
from turbotool.atomic import work_lock
from turbotool.backend import find_backend
from turbotool.binaries import Binaries, named_binaries
from turbotool.build import Outcome, build
from turbotool.buildkey import Request, Source
from turbotool.buildplan import Plan, make_plan, tools_for
from turbotool.layout import Layout
from turbotool.lock import read_lock
from turbotool.output import Output, minutes
from turbotool.record import read_record
from turbotool.series import series_hash

MIB = 1 << 20


def build_product(layout: Layout, request: Request, out: Output, env: Mapping[str, str]) -> Outcome:
    """Vendor and patch if needed, then build if needed, and say what was done.

    Raises BackendUnavailable and ToolMissing before anything is written, then whatever vendoring, patching and
    building raise.
    """
    tools = tools_for(request, env)
    with work_lock(layout, out, f"build {request.backend.name}") as keep:
        lock = read_lock(layout)
        applied = ensure_applied(layout, out)
        source = Source(layout.tree, applied.tree, lock.upstream.commit, lock.upstream.source, series_hash(layout))
        plan = make_plan(layout, request, source, tools, env)
        announce(plan, out)
        outcome = build(plan, out, keep)
    conclude(outcome, out)
    return outcome


def choose_binaries(layout: Layout, backend: str, bin_dir: Path | None, out: Output) -> Binaries:
    """The programs in `bin_dir`, or those of an up-to-date build of the backend, made now if it is not there.

    A build that is there is kept: what is made anew is made with the options that it was made with.
    """
    if bin_dir:
        named = named_binaries(bin_dir, backend)
        if named.backend != backend:
            out.say(f"{bin_dir} was built for {named.backend}, and so it is taken")
        return named
    wanted = find_backend(backend)
    last = read_record(layout.build(wanted.name))
    request = Request.again(wanted, last.document.get("asked", {}) if last else {})
    if request.words:
        out.say(f"the build was made with {' '.join(request.words)}, and so it is now")
    done = build_product(layout, request, out, os.environ)
    return Binaries(done.bin_dir, done.tree, done.backend)


def announce(plan: Plan, out: Output) -> None:
    """The resolved options, before anything runs; every one of them with -v."""
    chain = plan.chain
    launcher = f" through {chain.launcher.path}" if chain.launcher else ""
    out.say(
        f"{plan.request.backend.name}: {chain.cxx.path} {chain.cxx.version}{launcher}, tree {plan.source.tree[:12]}"
    )
    for name, value in plan.inputs.items():
        out.detail(f"  {name}: {value}")
    out.detail(f"  build folder: {plan.folder}")


def conclude(outcome: Outcome, out: Output) -> None:
    """A table of what was built, its sizes in MiB, and how long it took; one line when there was nothing to do."""
    if outcome.cached:
        out.say(f"nothing to do: {len(outcome.outputs)} files in {outcome.bin_dir} are up to date")
        return
    for output in outcome.outputs:
        out.say(f"{output.bytes / MIB:9.2f} MiB  {output.sha256[:12]}  {output.name}")
    out.say(f"built {len(outcome.outputs)} files in {minutes(outcome.seconds)}: {outcome.bin_dir}")
