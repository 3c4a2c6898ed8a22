"""`turbotool eval --scheduler` on a real Dask cluster of two worker processes, one of which is killed halfway."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import finished, started
from eval_site import make_eval_folder
from fake_eval import eval_programs, eval_runs
from processes import is_alive

from turbotool.errors import ClusterError, Interrupted

pytest.importorskip("distributed")
pytest.importorskip("scipy")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")]

KV = ("--kv", "q8_0,q8_0/turbo4,turbo4", "--rotation", "off,v", "--chunks", "4")
RUNS = 9  # six cells, q4_0, f16 twice
WAIT = 240.0  # seconds for what takes a few on an idle machine
ended = partial(finished, timeout=3600)
RUN_TO_RUN = ("seconds", "peak_mib")


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers: processes, as a user starts them."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited for {what}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    told = tmp_path / "scheduler.json"
    log = (tmp_path / "dask.log").open("wb")
    dask = [sys.executable, "-m", "dask"]
    quiet = ["--no-dashboard", "--scheduler-file", str(told)]
    command = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *quiet]
    started = [subprocess.Popen(command, stdout=log, stderr=log)]
    try:
        until(told.exists, "a scheduler")
        worker = [*dask, "worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path), *quiet]
        started += [subprocess.Popen(worker, stdout=log, stderr=log) for _ in range(2)]
        until(lambda: (tmp_path / "dask.log").read_bytes().count(b"Register worker") == 2, "two workers")
        yield Cluster(json.loads(told.read_text())["address"], started[0], tuple(started[1:]))
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
        log.close()


@dataclass(frozen=True)
class Site:
    """A folder with a model, a text and fake programs."""

    folder: Path
    named: list[Path | str]

    def start(self, *words: str, work: str = "work") -> subprocess.Popen[str]:
        variables = {"TURBOTOOL_WORK": str(self.folder / work)}
        return started("eval", *self.named, *KV, *words, "--json", variables=variables)

    def cells(self) -> list[str]:
        return [one["cell"] for one in eval_runs(self.folder) if one["what"] == "cell"]


def figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [*document["cells"], *document["controls"]["q4_0"]]
    return [{name: value for name, value in cell.items() if name not in RUN_TO_RUN} for cell in cells]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, make_eval_folder(tmp_path, seconds=1))


def test_a_sweep_outlives_a_worker_that_is_killed_halfway(site: Site, cluster: Cluster) -> None:
    client = site.start("--scheduler", cluster.address)
    until(lambda: len(site.cells()) > RUNS // 2, "half of the cells")
    cluster.workers[0].send_signal(signal.SIGKILL)
    found = ended(client)
    assert found["ok"]
    runs = Counter(site.cells())
    wanted = Counter({"f16/f16/off": 2, **{one: 1 for one in runs if one != "f16/f16/off"}})
    assert len(wanted) == RUNS - 1
    assert runs - wanted in (Counter(), *(Counter({one: 1}) for one in runs))  # at most the one that died with it
    assert [one["what"] for one in eval_runs(site.folder)].count("base") == 1
    log = (site.folder / "work" / "build" / "eval" / "eval.log").read_text()
    assert len({line for line in log.splitlines() if line.startswith("# on worker")}) == 2
    eval_programs(site.folder / "bin")
    assert figures(ended(site.start(work="another"))) == figures(found)


def test_ctrl_c_ends_what_workers_run_and_the_next_run_goes_on(site: Site, cluster: Cluster) -> None:
    eval_programs(site.folder / "bin", seconds=WAIT)
    client = site.start("--scheduler", cluster.address)
    until(lambda: len(site.cells()) == 2, "two cells at once")
    client.send_signal(signal.SIGINT)
    ended(client, Interrupted.exit_code)
    pids = [one["pid"] for one in eval_runs(site.folder) if one["what"] == "cell"]
    until(lambda: not any(map(is_alive, pids)), "the end of both programs")
    eval_programs(site.folder / "bin")
    assert ended(site.start("--scheduler", cluster.address))["ok"]
    assert [one["what"] for one in eval_runs(site.folder)].count("base") == 1


def test_a_scheduler_that_is_lost_ends_the_command_and_keeps_what_was_measured(site: Site, cluster: Cluster) -> None:
    client = site.start("--scheduler", cluster.address)
    until(lambda: len(site.cells()) > RUNS // 2, "half of the cells")
    cluster.scheduler.send_signal(signal.SIGKILL)
    found = ended(client, ClusterError.exit_code)
    assert "was lost" in found["error"]["message"]
    measured = len(site.cells())
    eval_programs(site.folder / "bin")
    assert ended(site.start())["ok"]
    assert len(site.cells()) - measured <= RUNS - 2


def test_real_programs_give_the_same_figures_on_a_cluster(tmp_path: Path, cluster: Cluster) -> None:
    words = ("eval", "--kv", "q8_0/turbo4", "--rotation", "v", "--ctx", "256", "--chunks", "1", "--bin-dir")
    bin_dir = ended(started("build", "--json"))["bin_dir"]
    texts = ["--corpus", tmp_path / "text.txt"]
    sentence = "The cache holds keys and values of every token, number {}, and each of them takes memory.\n"
    (tmp_path / "text.txt").write_text("".join(sentence.format(n) for n in range(200)))
    given = (*words, bin_dir, *texts, "--json")
    one = ended(started(*given, "--scheduler", cluster.address, variables={"TURBOTOOL_WORK": str(tmp_path / "one")}))
    other = ended(started(*given, variables={"TURBOTOOL_WORK": str(tmp_path / "two")}))
    assert figures(one) == figures(other)
    assert one["controls"]["noise_floor"][0]["ok"]
