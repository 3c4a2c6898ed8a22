"""Several models in one evaluation: one table with verdicts, a report of each, and no model that stops the others."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from command_line import Done, apart, private, typed
from eval_site import HOSTILE, KV, REPORT_FILES, EvalSite
from fake_eval import eval_programs, eval_runs
from html_page import Page
from tiny_gguf import gguf

from turbotool.errors import BinaryFailed, CorpusError, ModelError
from turbotool.evaluation.report.fields import EvalDocument
from turbotool.evaluation.report.models import kld_table, short
from turbotool.system.documents import convert, kind_of

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")
CRASH = {"phi.gguf: q8_0/turbo4/v": "SIGABRT"}


def measured(site: EvalSite, *words: str | Path, **behaviour: object) -> Done:
    """Two models of other content."""
    eval_programs(site.folder / "bin", **behaviour)
    (site.folder / "phi.gguf").write_bytes(gguf() + bytes(32))
    return site.eval(site.folder / "phi.gguf", *KV, *words)


def kld_lines(done: Done) -> list[list[str]]:
    """The table that the printed documents make: that of each model is one of an evaluation."""
    header = kind_of(EvalDocument).header
    return kld_table([convert({**header, **one}, EvalDocument, "models") for one in done.document["models"]])


def test_one_table_has_a_line_for_each_model_and_cache_with_its_verdicts(site: EvalSite) -> None:
    done = measured(site, "--json")
    assert (done.code, done.document["ok"]) == (0, True)
    header, *lines = kld_lines(done)
    assert header == ["model", "text", "cache", "off", "v", "perplexity", "recommended"]
    kld = {pair: base * 1.025 for pair, base in (("q8_0", 0.002), ("q8_0/turbo4", 0.011))}
    least = {"q8_0": "9.3", "q8_0/turbo4": "9.8"}  # a tenth less; what is told of it depends on how it is rounded
    assert lines == [
        [
            *(model, "text.txt", pair, f"{kld[pair]:.6f}", f"{kld[pair] * 0.9:.6f} better by at least {least[pair]} %"),
            *("no contradiction", "q8_0/turbo4 rotated v"),
        ]
        for model in ("model.gguf", "phi.gguf")
        for pair in kld
    ]
    assert "model 2 of 2: evaluating" in done.stderr
    assert "phi.gguf: run q8_0/turbo4 rotated v, 1 MiB less than f16 at 2048 tokens" in done.stderr
    assert "--models" not in done.stderr
    for one in done.document["models"]:
        assert one["command"].startswith("turbotool eval model.gguf phi.gguf --corpus text.txt --kv q8_0,q8_0/turbo4")


def test_each_model_is_measured_once_and_kept(site: EvalSite) -> None:
    measured(site, "--quiet")
    models = [Path(one["words"][one["words"].index("-m") + 1]).name for one in eval_runs(site.folder)]
    assert models.count("model.gguf") == models.count("phi.gguf") == 17
    measured(site, "--quiet")
    assert len(eval_runs(site.folder)) == 34


def test_a_crash_of_one_model_is_a_result_and_the_others_are_whole(site: EvalSite) -> None:
    done = measured(site, "--report", site.folder / "report", "--json", trouble=CRASH)
    assert done.code == done.document["error"]["code"] == BinaryFailed.exit_code
    lines = kld_lines(done)
    assert [line[4] for line in lines if line[:3:2] == ["phi.gguf", "q8_0/turbo4"]] == ["SIGABRT"]
    assert [one["ok"] for one in done.document["models"]] == [True, False]
    for name in ("models.md", "models.html"):
        assert "SIGABRT" in (site.folder / "report" / name).read_text(encoding="utf-8")


def test_a_decode_path_that_is_not_that_of_a_batch_stands_beside_the_recommendation(site: EvalSite) -> None:
    done = measured(site, "--report", site.folder / "report", decode=2)
    said = "decode path of q8_0/turbo4 rotated v on text.txt: NOT THAT OF A BATCH"
    for model in ("model.gguf", "phi.gguf"):
        assert f"{model}: {said}" in done.stderr  # at once
        assert f"{model}: run q8_0/turbo4 rotated v, 1 MiB less than f16 at 2048 tokens; {said}" in done.stdout
    for name in ("models.md", "models.html"):
        assert (site.folder / "report" / name).read_text(encoding="utf-8").count(said) == 2


def test_a_model_without_a_base_does_not_stop_the_others(site: EvalSite) -> None:
    words = ("--report", site.folder / "report", "--json")
    done = measured(site, *words, trouble={"model.gguf: base": "SIGSEGV"})
    assert done.code == BinaryFailed.exit_code
    failed, whole = done.document["models"]
    assert (failed["model"]["name"], failed["error"]["class"]) == ("model.gguf", "BinaryFailed")
    assert len(whole["cells"]) == 4
    report = (site.folder / "report" / "models.md").read_text(encoding="utf-8")
    assert "model.gguf: not measured: llama-perplexity ended with signal SIGSEGV" in report
    assert sorted(path.name for path in (site.folder / "report").iterdir() if path.is_dir()) == ["phi"]


def test_a_model_that_is_missing_is_told_before_any_is_measured(site: EvalSite) -> None:
    done = site.eval(site.folder / "nowhere.gguf", *KV)
    assert (done.code, eval_runs(site.folder)) == (ModelError.exit_code, [])


def test_what_ends_every_model_ends_the_command_with_it(site: EvalSite) -> None:
    (site.folder / "text.txt").write_text("a_long_word_of_one_token " * 1000)
    done = measured(site, "--json")
    assert done.code == BinaryFailed.exit_code
    assert "2 of 2 models could not be measured in full" in done.stderr
    assert [one["error"]["class"] for one in done.document["models"]] == [CorpusError.__name__] * 2


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models whose files have the same name, and a third; made once, because it takes some seconds."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "text.txt").write_text("word " * 5000)
    models = [folder / "model.gguf", folder / "phi.gguf", folder / "other" / "model.gguf"]
    for number, model in enumerate(models):
        model.parent.mkdir(exist_ok=True)
        model.write_bytes(gguf() + bytes(number))
    words: list[str | Path] = ["--corpus", folder / "text.txt", "--bin-dir", eval_programs(folder / "bin"), *KV]
    done = apart("eval", *models, *words, "--report", folder / "report", "--quiet", variables=private(folder))
    assert done.code == 0
    return folder / "report"


def test_a_report_has_a_folder_for_each_model_and_names_none_of_ours(reports: Path) -> None:
    assert sorted(path.name for path in reports.iterdir() if path.is_dir()) == ["model", "model-3", "phi"]
    assert sorted(path.name for path in reports.iterdir() if path.is_file()) == [
        f"models.{kind}" for kind in ("csv", "html", "json", "md")
    ]
    for path in reports.rglob("*.*"):
        assert not path.is_file() or str(reports.parent) not in path.read_text(encoding="utf-8")
    assert sorted(path.name for path in (reports / "phi").iterdir()) == REPORT_FILES


def test_the_page_of_all_models_links_to_those_of_each(reports: Path) -> None:
    page = Page((reports / "models.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.fetched == ["model/eval.html", "phi/eval.html", "model-3/eval.html"]
    assert all((reports / target).is_file() for target in page.fetched)
    markdown = (reports / "models.md").read_text(encoding="utf-8")
    assert len(page.rows) == 2 * (1 + 3 * 2)
    for row in page.rows:
        assert f"| {' | '.join(row)} |" in markdown


def test_no_name_can_become_markup_or_leave_the_folder(site: EvalSite) -> None:
    for word in ("model", "phi"):
        (site.folder / f"{HOSTILE} {word}.gguf").write_bytes(gguf() + word.encode())
    eval_programs(site.folder / "bin", trouble={f"{HOSTILE} phi.gguf: base": "SIGSEGV"})
    words: list[str | Path] = [site.folder / f"{HOSTILE} {word}.gguf" for word in ("model", "phi")]
    words += [
        "--corpus",
        site.folder / "text.txt",
        "--bin-dir",
        site.folder / "bin",
        *KV,
        "--report",
        site.folder / "r",
    ]
    assert typed(["eval", *words], site.capsys).code == BinaryFailed.exit_code
    raw = (site.folder / "r" / "models.html").read_text(encoding="utf-8")
    page = Page(raw)
    assert page.open == []
    assert "script" not in page.text
    assert "<script" not in raw.lower()
    assert any(line.startswith(f"{HOSTILE} phi.gguf: not measured") for line in page.text["li"])
    assert any(row[0] == f"{HOSTILE} model.gguf" for row in page.rows)
    (link,) = page.fetched
    assert (site.folder / "r" / unquote(link)).is_file()


def test_the_csv_and_the_json_have_every_cell_of_every_model(reports: Path) -> None:
    lines = list(csv.DictReader((reports / "models.csv").read_text(encoding="utf-8").splitlines()))
    kept: list[dict[str, Any]] = json.loads((reports / "models.json").read_text(encoding="utf-8"))["models"]
    cells = [(one["model"]["name"], cell) for one in kept for cell in one["cells"]]
    assert len(lines) == len(cells) == 12
    for line, (name, cell) in zip(lines, cells, strict=True):
        assert (line["model"], line["mean_kld"]) == (name, str(cell["mean_kld"]))


def test_a_failure_is_told_in_one_word() -> None:
    assert short("llama-perplexity ended with signal SIGKILL") == "SIGKILL"
    assert short("not finite") == "not finite"
    assert short("K cache type is f16, requested q8_0") == "failed"
