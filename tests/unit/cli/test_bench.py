"""`turbotool bench` from the command line to its reports, with a fake llama-bench whose times are known exactly."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Done, apart, typed
from fake_tools import STOCK_TYPES, bench_runs, llama_bench
from tiny_gguf import gguf, write

from turbotool.bench.rounds import BenchLedger
from turbotool.bench.write import BenchReport
from turbotool.errors import BinaryFailed, ConfigurationMismatch, ModelError, ToolMissing, UnknownCacheType
from turbotool.programs import choose
from turbotool.system.machine import usable_cpus

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

SMALL = ("--pp", "4", "--tg", "2", "--threads", "1", "--depth", "0, 512, 0", "--repeat", "2")


@dataclass(frozen=True)
class Site:
    """A folder with a model, builds and a work folder, and the command line in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def model(self) -> Path:
        return self.folder / "model.gguf"

    def bench(self, *words: str | Path, bin_dir: str | None = "ours") -> Done:
        named = ["--bin-dir", str(self.folder / bin_dir)] if bin_dir else []
        return typed(["bench", "--model", self.model, *named, *words], self.capsys)

    def measured(self) -> list[dict[str, Any]]:
        return bench_runs(self.folder)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    write(tmp_path, gguf())
    monkeypatch.setenv("TURBOTOOL_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("TURBOTOOL_CACHE", str(tmp_path / "cache"))
    llama_bench(tmp_path / "ours")
    llama_bench(tmp_path / "stock", types=list(STOCK_TYPES), commit="5t0cc", slow=2.0)
    return Site(tmp_path, capsys)


def cells_of(document: dict[str, Any], test: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    """By build, K type and depth."""
    return {(cell["build"], cell["k"], cell["depth"]): cell for cell in document["cells"] if cell["test"] == test}


def test_two_builds_are_compared_cell_by_cell(site: Site) -> None:
    done = site.bench("--kv", "f16,q8_0,turbo4", *SMALL, "--against", site.folder / "stock", "--json")
    assert (done.code, done.document["ok"], done.document["failures"]) == (0, True, [])
    decode = cells_of(done.document, "tg2")
    assert set(decode) == {
        (build, k, depth)
        for build, types in (("ours", ("f16", "q8_0", "turbo4")), ("against", ("f16", "q8_0")))
        for k in types
        for depth in (0, 512)
    }
    turbo = decode["ours", "turbo4", 512]
    ms = 10 + 512 * 4000 / 1e6
    assert turbo["samples"] == pytest.approx([1000 / ms] * 2)
    assert (turbo["median"], turbo["ms_per_token"]) == pytest.approx((1000 / ms, ms))
    assert turbo["ns_per_cached_token"] == pytest.approx(4000)
    assert turbo["ratio_f16"] == pytest.approx((10 + 512 * 2000 / 1e6) / ms)
    assert turbo["ratio_against"] is None
    assert decode["ours", "q8_0", 512]["ratio_against"] == pytest.approx(2.0)
    assert cells_of(done.document, "pp4")["ours", "f16", 0]["median"] == pytest.approx(1000)
    assert [build["commit"] for build in done.document["builds"]] == ["f00f00f00", "5t0cc"]


def test_what_the_other_build_lacks_is_said_once_and_is_no_failure(site: Site) -> None:
    done = site.bench("--kv", "f16,turbo4,turbo4/f16", *SMALL, "--against", site.folder / "stock", "--json")
    assert done.code == 0
    assert done.stderr.count("left out") == 1
    assert "left out on against, whose llama-bench does not take turbo4: turbo4, turbo4/f16" in done.stderr
    assert [(item["build"], item["k"], item["v"]) for item in done.document["skipped"]] == [
        ("against", "turbo4", "turbo4"),
        ("against", "turbo4", "f16"),
    ]


def test_each_round_runs_each_cell_of_each_build_once(site: Site) -> None:
    site.bench("--kv", "f16,q8_0", *SMALL, "--repeat", "4", "--against", site.folder / "stock", "--quiet")
    runs = [(one["build"], one["-ctk"], one["-d"]) for one in site.measured()]
    first, rounds = runs[:2], [runs[2 + 8 * number : 10 + 8 * number] for number in range(4)]
    for one in site.measured():
        asked = "off" if one["-ctk"] == "f16" else "auto"
        assert one["env"] == {"LLAMA_ATTN_ROT_DISABLE": "1", "LLAMA_ARG_KV_CALIBRATION": asked}
    assert first == [("ours", "f16", "0"), ("stock", "f16", "0")]  # the first run of each build, which is not counted
    assert len(runs) == 2 + 4 * 8
    for measured in rounds:
        assert Counter(measured) == Counter(rounds[0])
        assert len(set(measured)) == 8
    assert rounds[1] == rounds[0][::-1]
    assert rounds[3] == rounds[2][::-1]
    assert len([key for key, _ in groupby(rounds[0], lambda one: one[1:])]) == 4  # the builds of a cell are neighbours


def test_a_cell_that_crashes_is_a_result_and_the_others_go_on(site: Site) -> None:
    llama_bench(site.folder / "ours", trouble={"turbo4@512": "SIGSEGV"})
    done = site.bench("--kv", "f16,turbo4", *SMALL, "--json")
    assert (done.code, done.document["ok"], done.document["complete"]) == (BinaryFailed.exit_code, False, True)
    assert done.document["error"]["class"] == "BinaryFailed"
    (failure,) = done.document["failures"]
    assert (failure["k"], failure["depth"], failure["round"]) == ("turbo4", 512, 1)
    assert "about to crash" in failure["error"]["message"]
    decode = cells_of(done.document, "tg2")
    assert decode["ours", "turbo4", 512]["failure"] == "llama-bench ended with signal SIGSEGV"
    assert [len(cell["samples"]) for cell in decode.values() if not cell["failure"]] == [2, 2, 2]
    assert len([one for one in site.measured() if (one["-ctk"], one["-d"]) == ("turbo4", "512")]) == 1
    assert "1 of 4 cells failed: ours turbo4 at depth 512 with 1 thread" in done.stderr


def test_a_cell_that_measured_something_else_is_refused(site: Site) -> None:
    llama_bench(site.folder / "ours", trouble={"q8_0@512": "config"})
    done = site.bench("--kv", "q8_0", *SMALL, "--json")
    assert done.code == done.document["error"]["code"] == ConfigurationMismatch.exit_code
    assert cells_of(done.document, "tg2")["ours", "q8_0", 512]["samples"] == []


def test_a_build_that_is_replaced_while_it_is_measured_is_noticed(site: Site) -> None:
    llama_bench(site.folder / "ours", trouble={"q8_0@512": "rebuilt"})
    done = site.bench("--kv", "q8_0", *SMALL, "--json")
    assert done.code == ConfigurationMismatch.exit_code
    assert "commit is newer, requested f00f00f00" in done.document["failures"][0]["error"]["message"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--kv", "f16,turbo5"], UnknownCacheType.exit_code, "did you mean 'turbo4'?"),
        (["--kv", ""], UnknownCacheType.exit_code, "unknown cache type ''"),
        (["--kv", "q5_1"], UnknownCacheType.exit_code, "does not take q5_1"),
        (["--depth", "0,-1"], 2, "'-1' is not a number from 0"),
        (["--depth", "999999999999999999999"], 2, "is not a number from 0"),
        (["--depth", ""], 2, "'' is not a number"),
        (["--threads", "0"], 2, "'0' is not a number from 1 to 512"),
        (["--threads", "two"], 2, "'two' is not a number"),
        (["--repeat", "0"], 2, "0 is not in the range"),
        (["--pp", "0", "--tg", "0"], 2, "leave nothing to measure"),
        (["--against", "work"], ToolMissing.exit_code, "has no llama-bench"),
        (["--against", "nowhere"], ToolMissing.exit_code, "there is no folder"),
        (["--bin-dir", "nowhere"], ToolMissing.exit_code, "there is no folder"),
        (["--model", "nowhere.gguf"], ModelError.exit_code, "nowhere.gguf"),
        (["--report", "model.gguf", "--no-plot"], 2, "cannot write to model.gguf: "),
    ],
)
def test_a_mistake_is_refused_before_anything_is_measured(
    site: Site, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, complaint: str
) -> None:
    monkeypatch.chdir(site.folder)
    (site.folder / "work").mkdir()
    done = site.bench(*words)
    assert (done.code, site.measured()) == (code, [])
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    if code != 2:
        assert "try: " in done.stderr


def test_a_build_that_does_not_start_is_refused_before_anything_is_measured(site: Site) -> None:
    (site.folder / "stock" / "llama-bench").chmod(0o644)
    assert site.bench("--against", site.folder / "stock").code == ToolMissing.exit_code
    llama_bench(site.folder / "stock", trouble={"f16@0": "SIGILL"})
    done = site.bench("--against", site.folder / "stock", "--json")
    assert done.code == BinaryFailed.exit_code
    assert "signal SIGILL" in done.document["error"]["message"]
    assert Counter(one["build"] for one in site.measured()) == {"ours": 1, "stock": 1}


def test_what_means_little_is_measured_with_a_warning(site: Site) -> None:
    threads = str(usable_cpus() + 1)
    done = site.bench("--kv", "f16", *SMALL, "--depth", "2047", "--threads", threads, "--repeat", "1")
    assert done.code == 0
    assert "was trained for 2048 tokens, 2051 are measured all the same" in done.stderr
    assert f"{threads} threads share {usable_cpus()} CPUs" in done.stderr


def test_without_a_named_folder_the_build_is_measured_and_must_report_its_tree(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = "0123456789abcdef0123456789abcdef01234567"
    outcome = SimpleNamespace(bin_dir=site.folder / "ours", tree=tree, backend="cpu")
    monkeypatch.setattr(choose, "build_product", lambda *_: outcome)
    refused = site.bench("--kv", "f16", *SMALL, "--json", bin_dir=None)
    assert refused.code == ConfigurationMismatch.exit_code
    assert "not tree 012345678" in refused.document["error"]["message"]
    llama_bench(site.folder / "ours", commit="0c1e57098-turbo-012345678")
    accepted = site.bench("--kv", "f16", *SMALL, "--json", bin_dir=None)
    assert (accepted.code, accepted.document["builds"][0]["tree"]) == (0, tree)


def test_the_report_can_be_shown_to_others(site: Site) -> None:
    pytest.importorskip("matplotlib")
    llama_bench(site.folder / "ours", trouble={"turbo4@512": "config", "turbo3@0": "SIGABRT"})
    report = site.folder / "report"
    words = ("--kv", "f16,q8_0,turbo4,turbo3", *SMALL, "--against", site.folder / "stock", "--report", report)
    assert site.bench(*words).code == ConfigurationMismatch.exit_code
    assert sorted(path.name for path in report.iterdir()) == ["bench.json", "bench.md", "bench.svg"]
    for path in report.iterdir():
        assert str(site.folder) not in path.read_text(encoding="utf-8")
    document = json.loads((report / "bench.json").read_text(encoding="utf-8"))
    assert document["model"] == "model.gguf"
    assert document["settings"]["rounds_done"] == 2
    assert not {"log", "bin_dir"} & {*document, *document["builds"][0]}
    assert not any("about to crash" in path.read_text(encoding="utf-8") for path in report.iterdir())
    markdown = (report / "bench.md").read_text(encoding="utf-8")
    command = (
        "turbotool bench --kv f16,q8_0,turbo4,turbo3 --calibration auto --depth 0,512 --threads 1 --pp 4 --tg 2 "
        "--repeat 2 --model model.gguf --bin-dir BIN_DIR --against OTHER_BIN_DIR"
    )
    assert document["command"] == command
    assert command in markdown
    assert "| q8_0 | 1 | 512 | ours | 95.13 | 95.13–95.13 | 10.512 | 1000.0 | 1.049 (1.049–1.049) |" in markdown  # noqa: RUF001
    assert "- against turbo4: its llama-bench does not take turbo4" in markdown
    assert "- ours turbo3 at depth 0 with 1 thread, in round 1: llama-bench ended with signal SIGABRT" in markdown


def test_what_was_measured_before_ctrl_c_is_in_the_report(site: Site) -> None:
    """The fake program presses Ctrl-C when the cell comes that is last of the first round."""
    site.bench("--kv", "f16,turbo4", *SMALL, "--repeat", "1", "--quiet")
    last = site.measured()[-1]
    llama_bench(site.folder / "ours", trouble={f"{last['-ctk']}@{last['-d']}": "interrupt"})
    report = site.folder / "report"
    words = ("--model", site.model, "--bin-dir", site.folder / "ours", "--kv", "f16,turbo4", *SMALL)
    done = apart("bench", *words, "--report", report, "--no-plot", "--json", timeout=60)
    assert (done.code, done.document["error"]["class"]) == (130, "Interrupted")
    document = json.loads((report / "bench.json").read_text(encoding="utf-8"))
    assert (document["ok"], document["complete"], document["settings"]["rounds_done"]) == (False, False, 0)
    assert [len(cell["samples"]) for cell in cells_of(document, "tg2").values()].count(1) == 3


def test_each_complete_round_is_saved(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = BenchReport.save

    def watched(report: BenchReport, ledger: BenchLedger) -> None:
        save(report, ledger)
        document = json.loads((site.folder / "report" / "bench.json").read_text(encoding="utf-8"))
        saved.append(document["settings"]["rounds_done"])

    monkeypatch.setattr(BenchReport, "save", watched)
    assert site.bench("--kv", "f16", *SMALL, "--report", site.folder / "report", "--no-plot").code == 0
    assert saved == [1, 2, 2]


def test_a_run_that_is_refused_leaves_an_older_report_alone(site: Site) -> None:
    report = site.folder / "report"
    report.mkdir()
    (report / "bench.json").write_text("old")
    llama_bench(site.folder / "ours", trouble={"f16@0": "SIGILL"})
    assert site.bench(*SMALL, "--report", report, "--no-plot").code == BinaryFailed.exit_code
    assert [(path.name, path.read_text()) for path in report.iterdir()] == [("bench.json", "old")]


def test_the_report_of_another_run_does_not_stay(site: Site) -> None:
    report = site.folder / "report"
    report.mkdir()
    for name in ("bench.svg", "bench.md", "mine.txt"):
        (report / name).write_text("old")
    site.bench("--kv", "f16", *SMALL, "--report", report, "--no-plot", "--quiet")
    assert sorted(path.name for path in report.iterdir()) == ["bench.json", "bench.md", "mine.txt"]
    assert "bench.svg" not in (report / "bench.md").read_text(encoding="utf-8")


def test_a_missing_plotting_library_is_told_before_the_measurement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    report = site.folder / "report"
    done = site.bench("--kv", "f16", *SMALL, "--report", report)
    assert (done.code, site.measured(), report.exists()) == (ToolMissing.exit_code, [], False)
    assert "-m pip install 'matplotlib>=3.8'" in done.stderr
    assert site.bench("--kv", "f16", *SMALL, "--report", report, "--no-plot").code == 0


def test_a_cache_is_timed_with_and_without_calibration_where_k_is_quantized(site: Site) -> None:
    done = site.bench("--kv", "f16,f16/turbo4,turbo4", "--calibration", "off,auto", *SMALL, "--json")
    assert done.code == 0
    cells = [(cell["k"], cell["v"], cell["calibration"]) for cell in done.document["cells"] if cell["test"] == "tg2"]
    turbo = ("turbo4", "turbo4")
    wanted = [("f16", "f16", "off"), ("f16", "turbo4", "off"), (*turbo, "off"), (*turbo, "auto")]
    assert Counter(cells) == dict.fromkeys(wanted, 2)
    assert [cell["ratio_f16"] is None for cell in done.document["cells"]] == [False] * len(done.document["cells"])
    found = {one["calibration"]: one["said"][0]["on"] for one in done.document["calibrations"]}
    assert (found, done.document["settings"]["calibration"]) == ({"off": False, "auto": True}, ["off", "auto"])
    assert "turbo4 uncalibrated" in done.stderr
    assert {Path(run["kept"]).parent.name for run in site.measured()} == {"llama-cache"}


def test_a_build_beside_ours_that_knows_nothing_of_calibrations_is_timed_without_and_said_so(site: Site) -> None:
    llama_bench(site.folder / "stock", types=list(STOCK_TYPES), stock=True)
    report = site.folder / "report"
    words = ("--kv", "f16,q8_0", *SMALL, "--against", site.folder / "stock", "--report", report, "--no-plot", "--json")
    done = site.bench(*words)
    assert done.code == 0
    assert "against knows nothing of calibrated caches: its own are not" in done.stderr
    assert [build["calibrates"] for build in done.document["builds"]] == [True, False]
    assert cells_of(done.document, "tg2")["ours", "q8_0", 512]["ratio_against"] is not None
    assert "auto; none on *against*, which knows nothing of it" in (report / "bench.md").read_text(encoding="utf-8")


def test_ours_must_calibrate_as_it_was_asked_to(site: Site) -> None:
    llama_bench(site.folder / "ours", trouble={"turbo4": "unmeasured"})
    refused = site.bench("--kv", "f16,turbo4", *SMALL)
    assert refused.code == ConfigurationMismatch.exit_code
    assert "turbo4: the cache is not calibrated (not measured), requested auto" in refused.stderr
    llama_bench(site.folder / "ours", stock=True)
    refused = site.bench("--kv", "f16,turbo4", *SMALL)
    assert refused.code == ConfigurationMismatch.exit_code
    assert "add --calibration off" in refused.stderr
    assert site.bench("--kv", "f16,turbo4", *SMALL, "--calibration", "off").code == 0
    assert site.bench("--kv", "f16", *SMALL).code == 0
