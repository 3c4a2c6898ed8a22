"""From the lock to binaries: the patched tree of the series, built. `turbotool build` and `verify` start with it."""

from __future__ import annotations

from collections.abc import Mapping

from turbotool.build.compile import BuildOutcome, build
from turbotool.build.plan import BuildPlan, make_plan, tools_for
from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.series.apply import ensure_applied
from turbotool.series.files import series_hash
from turbotool.system.locks import work_lock
from turbotool.system.output import Output, minutes
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock

MIB = 1 << 20


def build_product(session: Session, request: BuildRequest, env: Mapping[str, str]) -> BuildOutcome:
    """Vendor and patch if needed, then build if needed, and say what was done.

    Raises BackendUnavailable and ToolMissing before anything is written, then whatever vendoring, patching and
    building raise.
    """
    tools = tools_for(request, env)
    with work_lock(session, f"build {request.backend.name}") as held:
        lock = read_lock(held.layout)
        applied = ensure_applied(held)
        source = PatchedSource(held.layout.tree, applied.tree, lock.upstream, series_hash(held.layout))
        plan = make_plan(held.layout, request, source, tools, env)
        announce(plan, held.out)
        outcome = build(plan, held)
    conclude(outcome, session.out)
    return outcome


def announce(plan: BuildPlan, out: Output) -> None:
    """The resolved options, before anything runs; every one of them with -v."""
    chain = plan.chain
    launcher = f" through {chain.launcher.path}" if chain.launcher else ""
    out.say(
        f"{plan.request.backend.name}: {chain.cxx.path} {chain.cxx.version}{launcher}, tree {plan.source.tree[:12]}"
    )
    for name, value in plan.inputs.items():
        out.detail(f"  {name}: {value}")
    out.detail(f"  build folder: {plan.folder}")


def conclude(outcome: BuildOutcome, out: Output) -> None:
    """A table of what was built, its sizes in MiB, and how long it took; one line when there was nothing to do."""
    if outcome.cached:
        out.say(f"nothing to do: {len(outcome.outputs)} files in {outcome.bin_dir} are up to date")
        return
    for output in outcome.outputs:
        out.say(f"{output.bytes / MIB:9.2f} MiB  {output.sha256[:12]}  {output.name}")
    out.say(f"built {len(outcome.outputs)} files in {minutes(outcome.seconds)}: {outcome.bin_dir}")
