"""llama-server in the place of turbotool: started, waited for, told to end, and gone with it."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from turbotool.errors import ConfigurationMismatch, Interrupted
from turbotool.kv.calibration import AUTO, VARIABLE, can_gain
from turbotool.kv.effective import VERBOSE, Calibrated, Effective, differences, parse_effective
from turbotool.kv.rotation import DISABLE, K_OVERRIDE, V_OVERRIDE
from turbotool.serve import words
from turbotool.serve.plan import ServePlan
from turbotool.serve.serverlog import address_in, not_started
from turbotool.system.output import Output, minutes
from turbotool.system.process import Background, background, describe_exit, signals_noted

ASK_SECONDS = 0.1
ANSWER_SECONDS = 5.0
TELL_SECONDS = 30.0
# what of an environment would undo the plan, and no word of the command line overrides
UNDOING = (
    *(DISABLE, K_OVERRIDE, V_OVERRIDE, VARIABLE),
    *("LLAMA_ARG_N_PARALLEL", "LLAMA_ARG_KV_UNIFIED", "LLAMA_ARG_MODEL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_HF_FILE"),
    "LLAMA_ARG_LOG_JSONL",
)


@dataclass(frozen=True)
class LiveServer:
    """A server that answers: its address, the seconds until it did, and what its log says of the cache.

    `effective` has no cache where the model has none, or the log says nothing of it.
    """

    address: str
    pid: int
    seconds: float
    log: Path
    effective: Effective

    @property
    def calibration(self) -> Calibrated | None:
        return next(iter(self.effective.in_force), None)


@dataclass(frozen=True)
class Following:
    """A log that is read while it grows."""

    path: Path
    stream: TextIO
    out: Output

    def new(self) -> str:
        """What was written since the last question; shown with -v."""
        if text := self.stream.read():
            self.out.detail(text.rstrip("\n"))
        return text


def environment(plan: ServePlan, env: Mapping[str, str]) -> dict[str, str]:
    """The user's own environment, and what the cache asks for."""
    return {**{name: text for name, text in env.items() if name not in UNDOING}, **plan.environment}


def run_server(plan: ServePlan, log: Path, out: Output, ready: Callable[[LiveServer], None]) -> int:
    """Serve until llama-server ends or is ended: by Ctrl-C, `kill`, a closed terminal. The exit code as of a shell.

    `ready` is called as soon as it answers. Raises what keeps it from that: AddressUnavailable, ModelError,
    UsageMistake, BinaryFailed, ToolMissing, ConfigurationMismatch for another cache than the planned one, Interrupted.
    """
    command = plan.words((*VERBOSE, "--log-colors", "off"))
    with (
        signals_noted() as noted,
        background(command, cwd=Path.cwd(), env=environment(plan, os.environ), log=log) as child,
        log.open(encoding="utf-8", errors="replace") as told,
    ):
        following = Following(log, told, out)
        ready(_wait(plan, child, following, noted))
        while child.wait(ASK_SECONDS) is None and not noted():
            if out.verbose:
                following.new()
        code = child.end(hurry=lambda: noted() > 1)
    out.say(f"llama-server has ended{'' if noted() else ' by itself'}: {describe_exit(code)}, log {log}")
    return code if code >= 0 else 128 - code


def _wait(plan: ServePlan, child: Background, following: Following, noted: Callable[[], int]) -> LiveServer:
    started = told = time.monotonic()
    log = ""
    while not noted():
        ended = child.returncode  # asked before the log is read, which is then whole
        log += following.new()
        if ended is not None:
            raise not_started(plan.model.path, log, ended, following.path)
        address = address_in(log)
        if address and _answers(address, plan):
            effective = parse_effective(log)
            _require_planned(plan, effective, following.path)
            return LiveServer(address, child.pid, time.monotonic() - started, following.path, effective)
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            following.out.say(f"not ready after {minutes(told - started)}: see {following.path}")
        time.sleep(ASK_SECONDS)
    raise Interrupted("interrupted before the server was ready")


def _answers(address: str, plan: ServePlan) -> bool:
    """Whether /health says that it is ready. Where urllib cannot ask, its log has said so."""
    if not address.startswith("http://"):
        return True
    prefix = words.value(plan.wanted.words, os.environ, *words.PREFIX)
    # a proxy of the environment must not see a call to this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}{prefix}/health", timeout=ANSWER_SECONDS) as answer:
            return bool(json.loads(answer.read()).get("status") == "ok")
    except (OSError, ValueError):
        return False


def _require_planned(plan: ServePlan, effective: Effective, log: Path) -> None:
    """Raise ConfigurationMismatch unless what runs is what was chosen; a log without a cache tells nothing."""
    configuration = plan.chosen.configuration
    if not effective.caches:
        return
    calibration = AUTO if can_gain(configuration.pair) else configuration.calibration
    if found := differences(configuration.pair, configuration.knobs, plan.model, effective, calibration):
        message = f"the server was to have a {configuration} cache, but {'; '.join(found)}"
        raise ConfigurationMismatch(message, hint=f"turbotool serve ... --kv f16, or see {log}")
