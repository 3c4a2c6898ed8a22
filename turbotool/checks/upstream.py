"""Upstream's own test programs, for the turbo types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from turbotool.cachetype import TURBO
from turbotool.checks.core import Context, Outcome
from turbotool.kvlog import whole_lines
from turbotool.process import Completed, describe_exit

QUICK_OPS = ("CPY", "GET_ROWS", "SET_ROWS")
FULL_OPS = (*QUICK_OPS, "MUL_MAT", "FLASH_ATTN_EXT")
CASE = re.compile(r"^\s*(?P<op>[A-Z0-9_]+)\((?P<vars>.*)\): (?P<result>OK|FAIL|not supported.*)$")
CASES = r"\bturbo[234]\b"
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
OWN_TIMEOUT = 1800.0  # seconds; a driver that compiles for the CPU needs some minutes


def parse_cases(output: str) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Cases that passed, by (turbo type, op), and the lines of those that failed."""
    passed: Counter[tuple[str, str]] = Counter()
    failed = []
    for match in _results(output):
        if match["result"] == "FAIL":
            failed.append(f"{match['op']}({match['vars']})")
        for name in TURBO:
            if match["result"] == "OK" and re.search(rf"\b{name}\b", match["vars"]):
                passed[name, match["op"]] += 1
    return passed, failed


def parse_all(output: str) -> tuple[int, list[str]]:
    """How many cases of any type passed, and those that failed."""
    results = list(_results(output))
    failed = [f"{match['op']}({match['vars']})" for match in results if match["result"] == "FAIL"]
    return len(results) - len(failed), failed


def _results(output: str) -> Iterator[re.Match[str]]:
    for line in whole_lines(output):
        match = CASE.match(line)
        if match and not match["result"].startswith("not supported"):
            yield match


def backend_ops(context: Context) -> Outcome:
    """test-backend-ops passes for every turbo type and every op that a cache uses, and really ran cases of each."""
    ops = QUICK_OPS if context.quick else FULL_OPS
    runs = [
        _run_cases(context, group, pattern) for group, pattern in _groups(ops, sample=bool(context.runner.binaries.env))
    ]
    output = "".join(done.output for done in runs)
    bound = "all pass, > 0 cases for each type and op"
    device = BACKENDS.get(context.runner.binaries.backend)
    if device and not any(done.returncode for done in runs) and not _tested(device, output):
        return Outcome(False, None, bound, f"there is no device {device} here", skipped=True)
    passed, failed = parse_cases(output)
    lacking = [f"{name} {op}" for name in TURBO for op in ops if not passed[name, op]]
    faults = [f"{len(failed)} failed, first {failed[0]}"] if failed else []
    faults += [f"no case ran for {', '.join(lacking)}"] if lacking else []
    faults += [describe_exit(done.returncode) for done in runs if done.returncode]
    counts = ", ".join(f"{name} {sum(count for (kind, _), count in passed.items() if kind == name)}" for name in TURBO)
    return Outcome(not faults, sum(passed.values()), bound, "; ".join([*faults, counts]))


def _tested(device: str, output: str) -> bool:
    return bool(re.search(rf"^Backend \d+/\d+: {device}$", output, re.MULTILINE))


def _groups(ops: Sequence[str], *, sample: bool) -> list[tuple[tuple[str, ...], str]]:
    """Ops that run together, and the pattern of their cases."""
    sampled = [op for op in ops if sample and op in SAMPLE]
    whole = tuple(op for op in ops if op not in sampled)
    return [(whole, CASES), *(((op,), SAMPLE[op]) for op in sampled)]


def _run_cases(context: Context, ops: Sequence[str], pattern: str) -> Completed:
    arguments = ["test", "-o", ",".join(ops), "-p", pattern, "-j", str(context.runner.threads)]
    backend = BACKENDS.get(context.runner.binaries.backend)
    return context.runner.plain("test-backend-ops", [*arguments, *(["-b", backend] if backend else [])])


def turbo_codec(context: Context) -> Outcome:
    """test-turbo, the series' own test of the codec, passes and checked something."""
    return _own_test(context, "test-turbo", [])


def device_capability(context: Context) -> Outcome:
    """test-kv-device passes: what a device cannot do with a cache is said once and runs on the CPU, never an abort."""
    return _own_test(context, "test-kv-device", [context.model.path])


def _own_test(context: Context, program: str, arguments: Sequence[str | Path]) -> Outcome:
    """A test program of the series, which prints a line for each thing that it tested."""
    done = context.runner.plain(program, arguments, timeout=OWN_TIMEOUT)
    lines = list(whole_lines(done.output))
    failed = [line for line in lines if line.startswith("FAILED: ")]
    passed = sum(line.startswith("ok: ") for line in lines)
    faults = failed[:3] + ([describe_exit(done.returncode)] if done.returncode else [])
    return Outcome(passed > 0 and not faults, passed, "all pass, > 0 ran", "; ".join(faults))


def quantize_fns(context: Context) -> Outcome:
    """test-quantize-fns passes and names the turbo types among those that it tested."""
    bound = f"= {len(TURBO)} turbo types tested, exit status 0"
    if "test-quantize-fns" not in context.runner.binaries.programs:
        detail = "upstream builds test-quantize-fns only without loadable backends"
        return Outcome(False, None, bound, detail, skipped=True)
    done = context.runner.plain("test-quantize-fns", [], timeout=300)
    tested = [name for name in TURBO if any(line == f"Testing {name}" for line in whole_lines(done.output))]
    failed = [line.strip() for line in whole_lines(done.output) if "FAILED" in line]
    faults = failed[:3] + ([describe_exit(done.returncode)] if done.returncode else [])
    missing = [name for name in TURBO if name not in tested]
    faults += [f"not tested: {', '.join(missing)}"] if missing else []
    return Outcome(not faults, len(tested), bound, "; ".join(faults))
