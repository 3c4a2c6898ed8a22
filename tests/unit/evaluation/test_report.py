"""The reports of an evaluation: complete, without the network, readable on any page, and without a folder of ours."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from colours import contrast
from command_line import Done, typed
from eval_site import HOSTILE, KV, REPORT_FILES, EvalSite, cells_of
from fake_eval import eval_programs, eval_runs
from html_page import Page

from turbotool.errors import BinaryFailed, ToolFailed, ToolMissing
from turbotool.evaluation.cell import Measured
from turbotool.evaluation.identity import FileHashes
from turbotool.evaluation.measure import local, single
from turbotool.evaluation.report import plot
from turbotool.evaluation.report.fields import Sides
from turbotool.evaluation.report.plot import PlotPoint, pareto
from turbotool.evaluation.sweep import EvalJob, Sweep
from turbotool.kv.rotation import ROTATIONS
from turbotool.report import svg
from turbotool.report.svg import COLOURS, INK

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def test_a_report_is_four_files_that_name_no_folder(report: tuple[Path, Done]) -> None:
    folder, _ = report
    assert sorted(path.name for path in folder.iterdir()) == REPORT_FILES
    for path in folder.iterdir():
        assert str(folder.parent) not in path.read_text(encoding="utf-8")


def test_the_json_of_a_report_has_the_figures_of_the_document(report: tuple[Path, Done]) -> None:
    folder, done = report
    found = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    assert [{**cell, "failure": None} for cell in found["cells"]] == [
        {**cell, "failure": None} for cell in done.document["cells"]
    ]
    assert found["verdicts"] == done.document["verdicts"]
    assert found["command"].startswith("turbotool eval model.gguf --corpus text.txt --kv q8_0,q8_0/turbo4,turbo4")


def test_the_csv_has_a_line_for_each_cell_and_the_control(report: tuple[Path, Done]) -> None:
    folder, done = report
    lines = list(csv.DictReader((folder / "eval.csv").read_text(encoding="utf-8").splitlines()))
    assert [(line["k"], line["v"], line["rotation"]) for line in lines] == [*cells_of(done), ("q4_0", "q4_0", "off")]
    for line, cell in zip(lines, done.document["cells"], strict=False):
        assert line["mean_kld"] == ("" if cell["mean_kld"] is None else str(cell["mean_kld"]))
    assert lines[1]["failure"] == "llama-perplexity ended with signal SIGSEGV"
    assert (lines[5]["failure"], lines[5]["rms_dp"]) == ("not finite", "1.0")


def test_markdown_and_html_show_every_cell_with_its_verdict(report: tuple[Path, Done]) -> None:
    folder, _ = report
    markdown = (folder / "eval.md").read_text(encoding="utf-8")
    page = Page((folder / "eval.html").read_text(encoding="utf-8"))
    (row,) = [row for row in page.rows if row[:3] == ["q8_0/turbo4", "v", "6.375"]]
    assert row[3].startswith("0.01014")
    assert f"| {' | '.join(row)} |" in markdown
    assert any(re.fullmatch(r"better by at least 9\.\d %", cell) for cell in row)
    crashed = next(row for row in page.rows if row[:2] == ["q8_0", "v"])
    assert crashed[-1] == "llama-perplexity ended with signal SIGSEGV"
    assert any("not finite" in row for row in page.rows)


def test_the_html_file_needs_nothing_else(report: tuple[Path, Done]) -> None:
    folder, _ = report
    text = (folder / "eval.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert all(target.startswith("#") for target in page.fetched)
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert text.count("<svg ") == 4
    assert "prefers-color-scheme: dark" in text


def test_plots_have_no_background_and_only_colours_for_light_and_dark(report: tuple[Path, Done]) -> None:
    folder, _ = report
    pictures = re.findall(r"<svg .*?</svg>", (folder / "eval.html").read_text(encoding="utf-8"), re.DOTALL)
    for picture in pictures[1:]:  # the heat map has fields with letters of their own
        painted = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", picture))
        assert painted
        assert painted <= {*COLOURS, plot.ZONE} - {INK}  # letters and axes take the colour of the page's own
        assert picture.count("currentColor") > 10
    assert "signal" in (folder / "eval.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("low", "high"), [(1e-6, 2.0), (0.0035, 0.13), (0.001, 0.25), (0.0021, 0.0042), (0.01, 0.012)])
def test_numbers_on_a_logarithmic_axis_are_plain_and_do_not_touch(low: float, high: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(svg.WIDTH, plot.HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.plot([low, high], [0, 1])
    axes.set_xscale("log")
    plot._log(axes.xaxis)
    figure.draw_without_rendering()
    start, end = axes.get_xlim()
    shown = [tick.label1 for tick in axes.xaxis.get_major_ticks() if start <= tick.get_loc() <= end]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) > 1
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    assert low < 1e-4 or not any("e" in label.get_text() for label in shown)


def test_letters_stand_out_on_every_field_of_the_heat_map() -> None:
    from matplotlib import colormaps

    for step in range(101):
        colour = colormaps[plot.COLOURMAP](step / 100)
        shade = "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
        assert contrast(shade, plot._letters(colour)) >= 4.5


def test_no_name_answer_or_failure_can_become_markup(site: EvalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(sweep: Sweep, job: EvalJob, base: Path, hashes: FileHashes) -> Measured:
        if str(job.configuration) == "q8_0":
            raise ToolFailed(f"{HOSTILE}_$\nand more")
        return single.measured_cell(sweep, job, base, hashes)

    monkeypatch.setattr(local, "measured_cell", measured)
    text, model, folder = site.folder / f"{HOSTILE}.txt", site.folder / f"{HOSTILE}.gguf", site.folder / "report"
    (site.folder / "text.txt").rename(text)
    (site.folder / "model.gguf").rename(model)
    eval_programs(site.folder / "bin", answers={"Two": HOSTILE})
    words = [model, "--corpus", text, "--bin-dir", site.folder / "bin", *KV, "--report", folder]
    assert typed(["eval", *map(str, words)], site.capsys).code == BinaryFailed.exit_code
    raw = (folder / "eval.html").read_text(encoding="utf-8")
    page = Page(raw)
    assert page.open == []
    assert "script" not in page.text
    assert "<script" not in raw.lower()
    cells = [cell for row in page.rows for cell in row]
    assert {HOSTILE, f"{HOSTILE}_$", f"{HOSTILE}.txt"} <= set(cells)  # an answer, a failure and a text
    assert any(cell.startswith(f"{HOSTILE}.gguf, sha256") for cell in cells)
    assert page.text["title"] == page.text["h1"] == [f"KV cache quality of {HOSTILE}.gguf"]
    assert f"{HOSTILE}.txt" in page.text["h2"]
    assert shlex.quote(f"{HOSTILE}.gguf") in page.text["pre"][-1]


def test_a_report_of_nothing_but_crashes_is_still_a_report(site: EvalSite) -> None:
    cells = ("q8_0/q8_0/off", "q4_0/q4_0/off", "f16/f16/off")
    eval_programs(site.folder / "bin", trouble=dict.fromkeys(cells, "SIGABRT"))
    folder = site.folder / "report"
    done = site.eval("--kv", "q8_0", "--rotation", "off", "--chunks", "4", "--report", folder, "--json")
    assert done.code == BinaryFailed.exit_code
    assert sorted(path.name for path in folder.iterdir()) == REPORT_FILES
    assert done.document["recommendation"]["k"] == "f16"
    assert not done.document["controls"]["noise_floor"][0]["ok"]


def test_a_second_run_writes_the_same_report(site: EvalSite) -> None:
    first, second = site.folder / "first", site.folder / "second"
    site.eval(*KV, "--report", first)
    runs = len(eval_runs(site.folder))
    site.eval(*KV, "--report", second)
    assert len(eval_runs(site.folder)) == runs
    load = re.compile(r'"load": [\d.]+')
    for name in REPORT_FILES:
        one, other = ((folder / name).read_text(encoding="utf-8") for folder in (first, second))
        assert load.sub("", one) == load.sub("", other)


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_is_told_before_the_measurement(
    site: EvalSite,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else object())
    done = site.eval(*KV, "--report", site.folder / "report")
    assert (done.code, eval_runs(site.folder)) == (ToolMissing.exit_code, [])


def point(bits: float, kld: float) -> PlotPoint:
    row: Any = SimpleNamespace(bits=bits)
    return PlotPoint(row, kld, 0.0, 0.0, 0.0)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    best, cheap, beaten, same = point(8.5, 0.001), point(4.25, 0.05), point(6, 0.06), point(4.25, 0.07)
    assert pareto([best, beaten, same, cheap]) == [cheap, best]


def test_every_rotation_has_a_marker_and_may_stand_in_a_document() -> None:
    assert set(plot.ROTATION_MARKERS) == set(get_args(Sides)) == set(ROTATIONS)
