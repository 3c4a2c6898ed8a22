"""What the programs of a proof print, as figures; needs only the standard library."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_stage import Found, Printed

SHOWN = 20  # failures of one kind that the document lists
SLOWEST = 15  # steps of a build
# The error of a case that fails stands before it or before the result.
CASE = re.compile(r"(?P<op>[A-Z][A-Z0-9_]*)\((?P<parameters>.*)\): (?:\[\w+\] .*)?(?P<result>OK|FAIL|not supported.*)$")
TURBO = re.compile(r"\bturbo\d\b")
DIFFER = re.compile(r": (\d+) of (\d+) (\w+) differ")
ARCHITECTURES = re.compile(r"Using CMAKE_CUDA_ARCHITECTURES=(\S+)")
STEP = re.compile(r"^\[(\d+)/(\d+)\] ")
LISTED = re.compile(r"^  (\S+): (.+)$")
CHECK = re.compile(r"^(?:ok|FAIL|skip)\s+\S")


def configured(printed: Printed) -> Found:
    """The architectures that CMake chose."""
    found = ARCHITECTURES.search(printed.stdout)
    return Found({"cuda_architectures": found[1]} if found else {})


def built(folder: Path) -> Callable[[Printed], Found]:
    """How far ninja came, what did not compile, the slowest steps, and the sizes of programs and libraries in bytes."""

    def read(printed: Printed) -> Found:
        steps = [match for line in printed.stdout.splitlines() if (match := STEP.match(line))]
        done = {"done": int(steps[-1][1]), "of": int(steps[-1][2])} if steps else {}
        failed = [line for line in printed.stdout.splitlines() if line.startswith("FAILED: ")]
        times = step_times(folder / ".ninja_log")
        slowest = sorted(times.items(), key=lambda item: -item[1])[:SLOWEST]
        sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("bin/*")) if not path.is_symlink()}
        figures = {
            "steps": done,
            "failed": failed[:SHOWN],
            "all_steps_seconds": round(sum(times.values()), 1),
            "slowest_seconds": dict(slowest),
            "bytes": sizes,
        }
        return Found(figures, f"{len(failed)} steps failed" if failed else "")

    return read


def step_times(log: Path) -> dict[str, float]:
    """Wall seconds of each step in ninja's log: start and end in ms, time stamp, output, hash."""
    if not log.is_file():
        return {}
    rows = (line.split("\t") for line in log.read_text(encoding="utf-8", errors="replace").splitlines())
    return {row[3]: (int(row[1]) - int(row[0])) / 1000 for row in rows if len(row) > 3}  # noqa: PLR2004


def listed(device: str) -> Callable[[Printed], Found]:
    """The devices that the programs list; one whose name is `device` must be there."""

    def read(printed: Printed) -> Found:
        names = {match[1]: match[2] for line in printed.lines if (match := LISTED.match(line))}
        return Found({"devices": names}, "" if device in names else f"{device} is not among the devices")

    return read


def compared(*, other_device: bool) -> Callable[[Printed], Found]:
    """test-turbo-backend: what agrees with the reference and what does not; without `other_device` there is none."""

    def read(printed: Printed) -> Found:
        lines = printed.stdout.splitlines()
        kinds = {kind: [line for line in lines if line.startswith(f"{kind}: ")] for kind in ("ok", "FAILED")}
        lacking = [line for line in lines if line.startswith("unsupported: ")]
        counts = [match for line in kinds["ok"] if (match := DIFFER.search(line))]
        differ: Counter[str] = Counter()
        for match in counts:
            differ[match[3]] += int(match[1])
        figures = {
            "devices": [line for line in lines if line.startswith("device ")],
            "passed": len(kinds["ok"]),
            "failed": kinds["FAILED"][:SHOWN],
            "unsupported": lacking,
            "differ": dict(differ),
            "lines": kinds["ok"],
        }
        if not other_device:
            return Found(figures, skipped="a build for the CPU has no other device")
        if kinds["FAILED"]:
            return Found(figures, f"{len(kinds['FAILED'])} comparisons failed")
        return Found(figures, "" if kinds["ok"] else "nothing was compared")

    return read


def operations(ops: tuple[str, ...], types: tuple[str, ...]) -> Callable[[Printed], Found]:
    """test-backend-ops: the cases that passed by type and operation, those that failed, and those not supported."""

    def read(printed: Printed) -> Found:
        cases = [match for line in printed.lines if (match := CASE.search(line))]
        passed: dict[str, Counter[str]] = {name: Counter() for name in types}
        for case in cases:
            for name in set(TURBO.findall(case["parameters"])) & passed.keys() if case["result"] == "OK" else ():
                passed[name][case["op"]] += 1
        failed = [case.string.strip() for case in cases if case["result"] == "FAIL"]
        refused = Counter(case["op"] for case in cases if case["result"].startswith("not supported"))
        figures = {
            "passed": sum(case["result"] == "OK" for case in cases),
            "passed_of": {name: dict(counts) for name, counts in passed.items()},
            "failed": len(failed),
            "first_failed": failed[:SHOWN],
            "not_supported": dict(refused),
        }
        lacking = [f"{name} {op}" for name in types for op in ops if not passed[name][op]]
        faults = [f"{len(failed)} cases failed"] * bool(failed)
        return Found(figures, "; ".join([*faults, *([f"no case ran for {', '.join(lacking)}"] if lacking else [])]))

    return read


def document(printed: Printed) -> Found:
    """The one JSON document of a turbotool command; of one that was ended, what it had told until then."""
    try:
        return Found({"document": json.loads(printed.stdout)})
    except ValueError:
        told = [line for line in printed.stderr.splitlines() if CHECK.match(line)]
        return Found({"told": told}, "it printed no document")


def verified(left_out: tuple[str, ...], why: str, *, all_run: bool) -> Callable[[Printed], Found]:
    """`turbotool verify`: its document, and the checks that were not asked for; with `all_run` none may be skipped."""

    def read(printed: Printed) -> Found:
        found = document(printed)
        checks: list[dict[str, Any]] = found.figures.get("document", {}).get("checks", [])
        skipped = [str(check["name"]) for check in checks if check.get("skipped")]
        figures = {
            "passed": sum(bool(check.get("ok")) for check in checks),
            "failed": [check["name"] for check in checks if not (check.get("ok") or check.get("skipped"))],
            "skipped": skipped,
            "left_out": {"checks": list(left_out), "why": why if left_out else ""},
            **found.figures,
        }
        fault = found.fault or (f"skipped: {', '.join(skipped)}" if skipped and all_run else "")
        return Found(figures, fault)

    return read
