"""Upstream's own test programs, for the turbo types."""

from __future__ import annotations

import re
from collections import Counter

from turbotool.cachetype import TURBO
from turbotool.checks.core import Context, Outcome
from turbotool.kvlog import whole_lines
from turbotool.process import describe_exit

QUICK_OPS = ("CPY", "GET_ROWS", "SET_ROWS")
FULL_OPS = (*QUICK_OPS, "MUL_MAT", "FLASH_ATTN_EXT")
CASE = re.compile(r"^\s*(?P<op>[A-Z0-9_]+)\((?P<vars>.*)\): (?P<result>OK|FAIL|not supported.*)$")
BACKENDS = {"cpu": "CPU", "metal": "MTL0"}  # first device of each, as upstream names it


def parse_cases(output: str) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Cases that passed, by (turbo type, op), and the lines of those that failed."""
    passed: Counter[tuple[str, str]] = Counter()
    failed = []
    for line in whole_lines(output):
        match = CASE.match(line)
        if not match or match["result"].startswith("not supported"):
            continue
        if match["result"] == "FAIL":
            failed.append(f"{match['op']}({match['vars']})")
        for name in TURBO:
            if match["result"] == "OK" and re.search(rf"\b{name}\b", match["vars"]):
                passed[name, match["op"]] += 1
    return passed, failed


def backend_ops(context: Context) -> Outcome:
    """test-backend-ops passes for every turbo type and every op that a cache uses, and really ran cases of each."""
    ops = QUICK_OPS if context.quick else FULL_OPS
    arguments = ["test", "-o", ",".join(ops), "-p", r"\bturbo[234]\b", "-j", str(context.runner.threads)]
    backend = BACKENDS.get(context.runner.binaries.backend)
    done = context.runner.plain("test-backend-ops", [*arguments, *(["-b", backend] if backend else [])])
    passed, failed = parse_cases(done.output)
    lacking = [f"{name} {op}" for name in TURBO for op in ops if not passed[name, op]]
    faults = [f"{len(failed)} failed, first {failed[0]}"] if failed else []
    faults += [f"no case ran for {', '.join(lacking)}"] if lacking else []
    faults += [describe_exit(done.returncode)] if done.returncode else []
    counts = ", ".join(f"{name} {sum(count for (kind, _), count in passed.items() if kind == name)}" for name in TURBO)
    return Outcome(
        not faults, sum(passed.values()), "all pass, > 0 cases for each type and op", "; ".join([*faults, counts])
    )


def turbo_codec(context: Context) -> Outcome:
    """test-turbo, the series' own test of the codec, passes and checked something."""
    done = context.runner.plain("test-turbo", [], timeout=120)
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
