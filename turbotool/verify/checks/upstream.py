"""Upstream's own test programs, for the turbo types."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from turbotool.kv.cachetype import TURBO
from turbotool.system.lines import whole_lines
from turbotool.system.process import Completed, describe_exit
from turbotool.verify.check import CheckOutcome, Context

QUICK_OPS = ("CPY", "GET_ROWS", "SET_ROWS")
FULL_OPS = (*QUICK_OPS, "MUL_MAT", "FLASH_ATTN_EXT")
CASE = re.compile(r"^\s*(?P<op>[A-Z0-9_]+)\((?P<parameters>.*)\): (?P<result>OK|FAIL|not supported.*)$")
CASES = r"\bturbo[234]\b"
CALIBRATED = re.compile(r"^ +(?P<arch>\S+) +f32/f32 calibrated +(?:\x1b\[[\d;]*m)?(?P<result>OK|FAIL)")
BACKENDS = {  # the first device of each, as upstream names it
    "cpu": "CPU",
    "cuda": "CUDA0",
    "metal": "MTL0",
    "vulkan": "Vulkan0",
}
# On a device that is the CPU a pipeline takes seconds to compile, and nearly every case has its own: a sample of them.
SAMPLE = {
    "MUL_MAT": rf"{CASES}.*n=(1|9),k=256,bs=\[1,1\],nr=\[1,1\]",
    "FLASH_ATTN_EXT": rf"^hsk=64,hsv=64,.*kv=512,nb=1,mask=1,sinks=0,.*{CASES}",
}
OWN_BOUND = "all pass, > 0 ran"
OWN_TIMEOUT = 1800.0  # seconds; a driver that compiles for the CPU needs some minutes


class Case(NamedTuple):
    """A case of test-backend-ops; `parameters` as it prints them."""

    op: str
    parameters: str

    def __str__(self) -> str:
        return f"{self.op}({self.parameters})"


def parse_cases(output: str) -> tuple[list[Case], list[Case]]:
    """The cases that passed, and those that failed."""
    results: dict[str, list[Case]] = {"OK": [], "FAIL": []}
    for line in whole_lines(output):
        match = CASE.match(line)
        if match and match["result"] in results:
            results[match["result"]].append(Case(match["op"], match["parameters"]))
    return results["OK"], results["FAIL"]


def count_turbo(cases: Iterable[Case]) -> Counter[tuple[str, str]]:
    """How many cases there are of each (turbo type, op)."""
    return Counter((name, case.op) for case in cases for name in TURBO if re.search(rf"\b{name}\b", case.parameters))


def backend_ops(context: Context) -> CheckOutcome:
    """test-backend-ops passes for every turbo type and every op that a cache uses, and really ran cases of each."""
    ops = QUICK_OPS if context.quick else FULL_OPS
    sampled = [op for op in ops if context.runner.binaries.env and op in SAMPLE]
    runs = [_run_cases(context, group, pattern) for group, pattern in _groups(ops, sampled)]
    output = "".join(done.output for done in runs)
    bound = "all pass, > 0 cases for each type and op"
    device = BACKENDS.get(context.runner.binaries.backend)
    if device and not any(done.returncode for done in runs) and not _tested(device, output):
        return CheckOutcome(False, None, bound, f"there is no device {device} here", skipped=True)
    cases, failed = parse_cases(output)
    passed = count_turbo(cases)
    lacking = [f"{name} {op}" for name in TURBO for op in ops if not passed[name, op]]
    faults = [f"{len(failed)} failed, first {failed[0]}"] if failed else []
    faults += [f"no case ran for {', '.join(lacking)}"] if lacking else []
    faults += [describe_exit(done.returncode) for done in runs if done.returncode]
    counts = ", ".join(f"{name} {sum(count for (kind, _), count in passed.items() if kind == name)}" for name in TURBO)
    left_out = f"all but a sample of {' and '.join(sampled)}, which this device compiles for hours" if sampled else ""
    return CheckOutcome(not faults, sum(passed.values()), bound, "; ".join([*faults, counts]), left_out=left_out)


def _tested(device: str, output: str) -> bool:
    return bool(re.search(rf"^Backend \d+/\d+: {device}$", output, re.MULTILINE))


def _groups(ops: Sequence[str], sampled: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Ops that run together, and the pattern of their cases."""
    whole = tuple(op for op in ops if op not in sampled)
    return [(whole, CASES), *(((op,), SAMPLE[op]) for op in sampled)]


def _run_cases(context: Context, ops: Sequence[str], pattern: str) -> Completed:
    arguments = ["test", "-o", ",".join(ops), "-p", pattern, "-j", str(context.runner.threads)]
    backend = BACKENDS.get(context.runner.binaries.backend)
    return context.runner.plain("test-backend-ops", [*arguments, *(["-b", backend] if backend else [])])


def turbo_codec(context: Context) -> CheckOutcome:
    """test-turbo, the series' own test of the codec, passes and checked something."""
    return _own_test(context, "test-turbo", [])


def device_capability(context: Context) -> CheckOutcome:
    """test-kv-device passes: what a device cannot do with a cache is said once and runs on the CPU, never an abort."""
    return _own_test(context, "test-kv-device", [context.model.path])


def last_message(context: Context) -> CheckOutcome:
    """test-log-exit passes: a program that ends prints what it said last, and ends when a signal tells it to."""
    if os.name == "nt":
        detail = "a program does not wait for its log on Windows, where that can hang"
        return CheckOutcome(False, None, OWN_BOUND, detail, skipped=True)
    return _own_test(context, "test-log-exit", [])


def attention_memory(context: Context) -> CheckOutcome:
    """test-kv-plan passes: attention that is planned the memory of upstream's path takes that path, and is right."""
    return _not_built(context, "test-kv-plan", OWN_BOUND) or _own_test(context, "test-kv-plan", [])


def state_files(context: Context) -> CheckOutcome:
    """test-kv-state passes: a state that is cut, altered or of another rotation is refused, and nothing of it stays."""
    return _own_test(context, "test-kv-state", [context.model.path])


def calibration(context: Context) -> CheckOutcome:
    """test-kv-calibration passes: files, states and context shifts too."""
    program = "test-kv-calibration"
    return _not_built(context, program, OWN_BOUND) or _own_test(context, program, [context.model.path])


def calibrated_architectures(context: Context) -> CheckOutcome:
    """test-llama-archs with large weights, where attention is sharp: an f32 cache with any calibration stays exact.

    Upstream's own comparisons have no bound for such weights, so the exit status says nothing.
    """
    program = "test-llama-archs"
    if skipped := _not_built(context, program, OWN_BOUND):
        return skipped
    done = context.runner.plain(program, ["-d", "1", "-s", "1"], timeout=OWN_TIMEOUT)
    cases = [match for match in map(CALIBRATED.match, whole_lines(done.output)) if match]
    failed = [match["arch"] for match in cases if match["result"] != "OK"]
    faults = [f"failed: {', '.join(failed)}"] if failed else []
    faults += [] if "Summary: " in done.output else [f"stopped: {describe_exit(done.returncode)}"]
    return CheckOutcome(bool(cases) and not faults, len(cases), OWN_BOUND, "; ".join(faults))


def _not_built(context: Context, program: str, bound: str) -> CheckOutcome | None:
    """The outcome of a check whose program no package holds, in a package."""
    if program in context.runner.binaries.programs:
        return None
    return CheckOutcome(False, None, bound, f"{program} is not in packages", skipped=True)


def _own_test(context: Context, program: str, arguments: Sequence[str | Path]) -> CheckOutcome:
    return judge_own(context.runner.plain(program, arguments, timeout=OWN_TIMEOUT))


def judge_own(done: Completed) -> CheckOutcome:
    """A test program of the series, which prints a line for each thing that it tested."""
    lines = list(whole_lines(done.output))
    failed = [line for line in lines if line.startswith("FAILED: ")]
    passed = sum(line.startswith("ok: ") for line in lines)
    faults = failed[:3] + ([describe_exit(done.returncode)] if done.returncode else [])
    return CheckOutcome(passed > 0 and not faults, passed, OWN_BOUND, "; ".join(faults))


def quantize_fns(context: Context) -> CheckOutcome:
    """test-quantize-fns passes and names the turbo types among those that it tested."""
    bound = f"= {len(TURBO)} turbo types tested, exit status 0"
    if skipped := _not_built(context, "test-quantize-fns", bound):
        return skipped
    done = context.runner.plain("test-quantize-fns", [], timeout=300)
    tested = [name for name in TURBO if any(line == f"Testing {name}" for line in whole_lines(done.output))]
    failed = [line.strip() for line in whole_lines(done.output) if "FAILED" in line]
    faults = failed[:3] + ([describe_exit(done.returncode)] if done.returncode else [])
    missing = [name for name in TURBO if name not in tested]
    faults += [f"not tested: {', '.join(missing)}"] if missing else []
    return CheckOutcome(not faults, len(tested), bound, "; ".join(faults))
