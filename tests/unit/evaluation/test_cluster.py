"""`turbotool eval --scheduler`: the cells of a sweep on a Dask cluster; here its workers are threads."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Done
from error_classes import error_classes
from eval_site import CELLS, KV, EvalSite, cells_of
from fake_eval import eval_programs, eval_runs
from processes import is_alive

from turbotool.errors import (
    BinaryFailed,
    ClusterError,
    ConfigurationMismatch,
    CorpusError,
    Interrupted,
    ToolMissing,
    TurbotoolError,
)
from turbotool.evaluation.measure import cluster as evalcluster
from turbotool.evaluation.measure import worker
from turbotool.system import process

pytest.importorskip("scipy")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two workers."""
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(protocol="tcp", host="127.0.0.1", **options) as cluster:
        yield cluster.scheduler_address


def figures(done: Done) -> list[dict[str, Any]]:
    """The cells without what differs from run to run."""
    cells: list[dict[str, Any]] = done.document["cells"]
    return [{name: value for name, value in cell.items() if name not in ("seconds", "peak_mib")} for cell in cells]


def test_a_cluster_measures_what_one_process_measures(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = site.eval(*KV, "--scheduler", scheduler, "--json")
    assert (done.code, done.document["ok"]) == (0, True)
    wanted = {"f16/f16/off": 2, "q4_0/q4_0/off": 1, **{"/".join(cell): 1 for cell in CELLS}}
    assert Counter(site.measured()) == wanted
    assert site.measured("base") == ["f16/f16/off"]
    assert "7/7" in done.stderr
    log = (site.work / "eval.log").read_text()
    assert log.count("# on worker tcp://") == 7
    assert len({line for line in log.splitlines() if line.startswith("# on worker")}) == 2
    assert sorted(path.name for path in site.work.iterdir() if not path.name.startswith("corpus-")) == [
        "eval.log",
        "eval.sqlite",
        "lock",
    ]
    # the store is that of any other run
    runs = len(eval_runs(site.folder))
    assert figures(site.eval(*KV, "--json")) == figures(done)
    assert len(eval_runs(site.folder)) == runs
    monkeypatch.setenv("TURBOTOOL_WORK", str(site.folder / "another"))
    assert figures(site.eval(*KV, "--json")) == figures(done)
    assert len(eval_runs(site.folder)) == 2 * runs


def test_a_worker_that_has_other_files_measures_nothing(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identify = worker.identify
    first: list[str] = []

    def other_model(*words: Any) -> Any:
        address = distributed.get_worker().address
        first.append(address)
        return replace(identify(*words), model="0" * 64) if address == first[0] else identify(*words)

    monkeypatch.setattr(worker, "identify", other_model)
    done = site.eval(*KV, "--scheduler", scheduler, "--json")
    assert done.code == 0
    assert f"worker {first[0]} is not used: sha256 of its model is 000000000000, not " in done.stderr
    assert f"# on worker {first[0]}" not in (site.work / "eval.log").read_text()
    assert len(site.measured()) == 7


def test_if_no_worker_has_the_files_the_difference_is_named(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identify = worker.identify
    monkeypatch.setattr(worker, "identify", lambda *words: replace(identify(*words), binaries="1" * 64, corpus=""))
    done = site.eval(*KV, "--scheduler", scheduler, "--json")
    assert done.code == done.document["error"]["code"] == ConfigurationMismatch.exit_code
    assert "sha256 of its programs is 111111111111, not " in done.stderr
    assert "it cannot read the text" in done.stderr
    assert site.measured() == []


def test_workers_with_another_turbotool_are_not_used(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evalcluster, "__version__", "9.9")
    done = site.eval(*KV, "--scheduler", scheduler)
    assert done.code == ConfigurationMismatch.exit_code
    assert "here it is 9.9" in done.stderr
    assert site.measured() == []


def test_workers_must_have_the_file_of_a_calibration(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("turbotool.evaluation.run.require_files", lambda _: None)
    (site.folder / "x.kvcal.gguf").write_bytes(b"one")
    asked = ("--kv", "q8_0", "--rotation", "off", "--calibration", site.folder / "x.kvcal.gguf")
    words = (*asked, "--chunks", "4", "--scheduler", scheduler, "--json")
    assert [cell["calibration"] for cell in site.eval(*words).document["cells"]] == ["x.kvcal.gguf"]
    kept = {Path(one["kept"]).parent for one in eval_runs(site.folder)}
    assert kept == {site.work / "llama-cache"}  # of the client, which workers share
    identify = worker.identify
    monkeypatch.setattr(worker, "identify", lambda *words: replace(identify(*words), calibration=""))
    (site.folder / "x.kvcal.gguf").write_bytes(b"two")
    done = site.eval(*words)
    assert done.code == ConfigurationMismatch.exit_code
    assert "it cannot read the calibration" in done.stderr


def test_what_a_worker_has_is_read_from_its_files(site: EvalSite, scheduler: str) -> None:
    """The client's hash of the text is that of before it was changed."""
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--chunks", "4", "--scheduler", scheduler, "--quiet")
    assert done.code == 0
    text = site.folder / "text.txt"
    status = text.stat()
    text.write_text("word." * 5000)
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    worker._sha256.cache_clear()
    done = site.eval(*KV, "--scheduler", scheduler)
    assert done.code == ConfigurationMismatch.exit_code
    assert "sha256 of its text is " in done.stderr


def test_a_crash_on_a_worker_is_a_result(site: EvalSite, scheduler: str) -> None:
    eval_programs(site.folder / "bin", trouble={"q8_0/q8_0/off": "SIGSEGV", "q8_0/turbo4/v": "blocked"})
    done = site.eval(*KV, "--scheduler", scheduler, "--json")
    assert done.code == ConfigurationMismatch.exit_code
    assert cells_of(done)["q8_0", "q8_0", "off"]["failure"] == "llama-perplexity ended with signal SIGSEGV"
    assert "attn_rot_v is off (default), expected on" in cells_of(done)["q8_0", "turbo4", "v"]["failure"]
    assert cells_of(done)["q8_0", "turbo4", "off"]["mean_kld"] > 0


def test_a_text_that_is_too_short_ends_the_sweep(site: EvalSite, scheduler: str) -> None:
    (site.folder / "text.txt").write_text("a_long_word_of_one_token " * 1000)
    done = site.eval(*KV, "--scheduler", scheduler)
    assert done.code == CorpusError.exit_code
    assert "has 1000 tokens; a chunk of 512 needs a text of at least 1024" in done.stderr


def test_base_logits_that_a_worker_cannot_write_end_the_sweep(site: EvalSite, scheduler: str) -> None:
    eval_programs(site.folder / "bin", trouble={"base": "short"})
    done = site.eval(*KV, "--scheduler", scheduler)
    assert done.code == BinaryFailed.exit_code
    assert f"see {site.work / 'eval.log'}" in done.stderr
    assert site.measured() == []


def test_a_scheduler_that_does_not_answer_is_told_at_once(
    site: EvalSite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evalcluster, "CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "what is this"):
        done = site.eval(*KV, "--scheduler", address)
        assert done.code == ClusterError.exit_code
        assert f"no Dask scheduler answers at {address}" in done.stderr
        # one that lingered would stop the next client for good, should it be finalized while that one starts
        assert not [
            found for found in gc.get_objects() if type(found) is distributed.Client and found.status != "closed"
        ]
    assert eval_runs(site.folder) == []


def test_a_scheduler_that_is_lost_while_cells_run_is_told(
    site: EvalSite,
    scheduler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(futures: list[Any], **_options: object) -> None:
        raise distributed.client.FuturesCancelledError([])

    monkeypatch.setattr(distributed, "wait", lost)
    done = site.eval(*KV, "--scheduler", scheduler)
    assert done.code == ClusterError.exit_code
    assert f"the scheduler at {scheduler} was lost" in done.stderr


def test_without_dask_the_extra_is_named(site: EvalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "distributed" else object())
    done = site.eval(*KV, "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == ToolMissing.exit_code
    assert "turbotool[dask]" in done.stderr


def test_a_cluster_without_workers_is_not_waited_for_forever(
    site: EvalSite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evalcluster, "PATIENCE", 0.5)
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        done = site.eval(*KV, "--scheduler", cluster.scheduler_address)
    assert done.code == ClusterError.exit_code
    assert "has had no worker for" in done.stderr
    assert "dask worker tcp://127.0.0.1:" in done.stderr


@pytest.mark.parametrize("error_class", error_classes(), ids=lambda one: str(one.__name__))
def test_an_error_comes_back_from_another_process(error_class: type[TurbotoolError]) -> None:
    more = {"how": "badly"} if error_class is BinaryFailed else {}
    error = error_class("what", hint="next", **more)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(back) is error_class
    assert back.as_json() == error.as_json()
    assert (str(back), getattr(back, "how", None)) == ("what", more.get("how"))


def test_a_child_is_killed_when_it_is_no_longer_wanted(tmp_path: Path) -> None:
    unwanted = threading.Event()
    threading.Timer(0.5, unwanted.set).start()
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    seen: list[str] = []
    started = time.monotonic()
    with pytest.raises(Interrupted, match="stopped"):
        process.run([sys.executable, "-c", program], cwd=tmp_path, stop=unwanted.is_set, on_line=seen.append)
    assert time.monotonic() - started < 30
    assert not is_alive(int(seen[0]))
