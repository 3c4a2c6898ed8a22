"""The devices of a GPU backend: their driver, and whether they agree with the reference."""

from __future__ import annotations

import re
from dataclasses import replace

from turbotool.programs.devices import listed_devices
from turbotool.system.lines import whole_lines
from turbotool.system.process import describe_exit
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.upstream import BACKENDS, OWN_BOUND, OWN_TIMEOUT, judge_own, parse_cases

F16_CASE = r"^hsk=64,hsv=64,nh=4,nr23=\[1,1\],kv=512,nb=1,mask=1,sinks=0,.*type_K=f16,type_V=f16"
DIFFER = re.compile(r": (\d+) of \d+ blocks differ")


def device_driver(context: Context) -> CheckOutcome:
    """Upstream's own flash attention passes with an f16 cache: what fails here is no fault of the turbo types."""
    bound = "f16 passes, > 0 cases"
    backend = context.runner.binaries.backend
    if backend not in BACKENDS or backend == "cpu":
        return CheckOutcome(False, None, bound, f"no device to test in a {backend} build", skipped=True)
    devices = listed_devices(context.runner.binaries)
    if not devices:
        return CheckOutcome(False, None, bound, "no device is visible", skipped=True)
    done = context.runner.plain(
        "test-backend-ops", ["test", "-o", "FLASH_ATTN_EXT", "-p", F16_CASE, "-b", BACKENDS[backend]]
    )
    passed, failed = parse_cases(done.output)
    faults = [f"{len(failed)} failed, first {failed[0]}"] if failed else []
    if done.returncode:
        faults.append(
            f"upstream's flash attention with an f16 cache ends with {describe_exit(done.returncode)} "
            f"on {devices[0].label}: a defect of this driver, which every check with flash attention will meet; "
            "try a newer driver"
        )
    return CheckOutcome(bool(passed) and not faults, len(passed), bound, "; ".join(faults) or devices[0].label)


def turbo_devices(context: Context) -> CheckOutcome:
    """test-turbo-backend: the reference's bytes from SET_ROWS and CPY, its values from GET_ROWS and CPY."""
    if context.runner.binaries.backend == "cpu":
        return CheckOutcome(False, None, OWN_BOUND, "a cpu build has no other device", skipped=True)
    done = context.runner.plain("test-turbo-backend", [], timeout=OWN_TIMEOUT)
    lines = list(whole_lines(done.output))
    if "no device" in lines and not done.returncode:
        return CheckOutcome(False, None, OWN_BOUND, "no device is visible", skipped=True)
    judged = judge_own(done)
    lacking = [what for line in lines if (what := line.removeprefix("unsupported: ")) != line]
    differ = sum(int(match[1]) for line in lines if line.startswith("ok: ") and (match := DIFFER.search(line)))
    same = f"{differ} blocks differ, each as good as the reference's" if judged.ok else "no operation was compared"
    left_out = f"{len(lacking)} operations that a device does not support, first {lacking[0]}" if lacking else ""
    return replace(judged, detail=judged.detail or same, left_out=left_out)
