"""One entry that decides what is served and one that serves it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from turbotool.build.backends import BACKENDS
from turbotool.build.record import last_record
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import weight_bytes
from turbotool.memory.plan import Budget
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.serve import words
from turbotool.serve.launch import LiveServer, run_server
from turbotool.serve.losses import find_evidence
from turbotool.serve.plan import ServePlan, Wanted, plan_server
from turbotool.serve.pool import find_pool
from turbotool.system.session import Session

CPU = "cpu"
KEPT_LOGS = 10


def prepare(
    session: Session,
    model_path: Path,
    wanted: Wanted,
    *,
    memory: int | None = None,
    reserve: int,
    backend: str | None = None,
    bin_dir: Path | None = None,
) -> ServePlan:
    """Decide what is served with the build that is there, made if needed, or with the programs in `bin_dir`.

    `memory` and `reserve` are in bytes: what there is (None: what is free now), and what of it compute buffers may
    take. Raises ModelError, DoesNotFit, UsageMistake, ToolMissing, and what building raises.
    """
    words.require_free(wanted.words, os.environ)
    model = choose_model(session, model_path)
    weights = weight_bytes(model.path)
    backend = backend or built_backend(session)
    binaries = named_binaries(bin_dir, backend) if bin_dir else choose_binaries(session, backend, None)
    binaries.require("llama-server")
    pool = find_pool(binaries, memory)
    evidence = find_evidence(session.layout.builds / "eval" / "eval.sqlite", model, binaries)
    return plan_server(model, binaries, pool, Budget(pool.total, weights, reserve), wanted, evidence)


def built_backend(session: Session) -> str:
    """The backend of a build that is there, one of a GPU before that of the CPU."""
    there = [name for name in BACKENDS if last_record(session.layout.build(name))]
    return next((name for name in there if name != CPU), CPU)


def serve(session: Session, plan: ServePlan, ready: Callable[[LiveServer], None]) -> int:
    """Start llama-server and stay until it ends; its exit code. Raises as `run_server` does.

    Its log is a file of its own in build/serve, where that of the last servers are kept.
    """
    folder = session.layout.builds / "serve"
    older = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in older[: 1 - KEPT_LOGS]:
        path.unlink(missing_ok=True)
    return run_server(plan, folder / f"{plan.model.path.stem}-{os.getpid()}.log", session.out, ready)
