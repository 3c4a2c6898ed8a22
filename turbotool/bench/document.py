"""A benchmark as one JSON document, and as one that may be shown to others: it names no folder of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.bench.figures import make_cells
from turbotool.bench.plan import BenchPlan, Build
from turbotool.bench.rounds import BenchLedger, verdict
from turbotool.errors import first_line
from turbotool.programs.llamabench import KNOBS
from turbotool.system.machine import Machine

PRIVATE = ("bin_dir", "log")
UNITS = {
    "samples, median, min, max": "tokens/s",
    "ms_per_token": "ms",
    "ns_per_cached_token": "ns that each cached token adds to a decoded one",
    "ratio_f16": "speed over that of f16 on the same build at the same depth and threads, median of ratios in a round",
    "ratio_against": "speed of ours over that of against in the same cell, median of ratios in a round",
}


@dataclass(frozen=True)
class Subject:
    """What a report is about, apart from its figures: plan, machine and the command that was typed."""

    plan: BenchPlan
    machine: Machine
    command: str


def document(subject: Subject, ledger: BenchLedger) -> dict[str, object]:
    """The document of `turbotool bench --json`; figures as `Cell` defines them, in the units that it names."""
    plan = subject.plan
    complete = ledger.rounds == plan.settings.rounds
    failed = verdict(plan, ledger)
    return {
        "ok": complete and failed is None,
        "complete": complete,
        "model": str(plan.model.path),
        "builds": [_build(build) for build in plan.builds],
        "machine": {**subject.machine.as_json(), "gpu": plan.builds[0].warm.gpu},
        "settings": _settings(plan, ledger),
        "command": subject.command,
        "units": UNITS,
        "cells": [cell.as_json() for cell in make_cells(plan, ledger)],
        "skipped": [
            {"build": skipped.build, "k": skipped.pair.k, "v": skipped.pair.v, "reason": skipped.reason}
            for skipped in plan.skipped
        ],
        "failures": _failures(ledger),
        "log": str(plan.builds[0].runner.log),
        **({"error": failed.as_json()} if failed else {}),
    }


def _build(build: Build) -> dict[str, object]:
    binaries = build.runner.binaries
    return {
        "name": build.name,
        "bin_dir": str(binaries.bin_dir),
        "backend": binaries.backend,
        "tree": binaries.tree or None,
        "commit": build.warm.commit,
    }


def _settings(plan: BenchPlan, ledger: BenchLedger) -> dict[str, object]:
    settings = plan.settings
    return {
        "kv": [str(pair) for pair in settings.pairs],
        "depths": list(settings.depths),
        "threads": list(settings.threads),
        "tests": [str(phase) for phase in settings.phases],
        "rounds": settings.rounds,
        "rounds_done": ledger.rounds,
        "flash_attn": "on",
        "environment": dict(KNOBS.environment),
    }


def _failures(ledger: BenchLedger) -> list[dict[str, object]]:
    return [
        {
            "build": job.build,
            "k": job.point.pair.k,
            "v": job.point.pair.v,
            "depth": job.point.depth,
            "threads": job.point.threads,
            "round": failure.round + 1,
            "error": failure.error.as_json(),
        }
        for job, failure in ledger.failures.items()
    ]


def shareable(subject: Subject, ledger: BenchLedger) -> dict[str, object]:
    """The document without folders of this machine, and of each message only the line that says what happened."""
    return _shared(document(subject, ledger), subject.plan)


def _shared(data: Mapping[str, object], plan: BenchPlan) -> dict[str, object]:
    kept = {name: value for name, value in data.items() if name not in PRIVATE}
    message = kept.get("message")
    if isinstance(message, str):
        kept["message"] = first_line(message)
    return {name: _renamed(value, plan) for name, value in kept.items()}


def _renamed(value: object, plan: BenchPlan) -> object:
    if isinstance(value, Mapping):
        return _shared(value, plan)
    if isinstance(value, list):
        return [_renamed(item, plan) for item in value]
    return without_folders(value, plan) if isinstance(value, str) else value


def without_folders(text: str, plan: BenchPlan) -> str:
    """The text with the model's file name and the builds' names in place of their paths."""
    names = {str(plan.model.path): plan.model.path.name}
    for build in plan.builds:
        names |= {str(build.runner.binaries.bin_dir): build.name, str(build.runner.work): "work"}
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text
