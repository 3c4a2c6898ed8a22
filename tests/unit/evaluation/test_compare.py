"""`turbotool eval compare`: what differs between two result sets, whether it is noise, and what is not compared."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Done, apart, private, typed
from eval_site import KV, make_eval_folder
from fake_eval import KLD, eval_programs
from known_results import MEASURED

from turbotool.errors import ResultError, UnknownCacheType
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.compare.contrast import BASE, STATISTICS, difference
from turbotool.evaluation.compare.results import measured_of
from turbotool.evaluation.judge.finding import Equivalence
from turbotool.evaluation.report.document import statistics
from turbotool.evaluation.report.fields import CellFields
from turbotool.kv.cachetype import CachePair
from turbotool.kv.effective import parse_effective
from turbotool.programs.divergence import Estimate, Running
from turbotool.programs.perplexity import scored
from turbotool.system.documents import plain

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

Compare = Callable[..., Done]
PAIR = CachePair("q8_0", "turbo4")
ROUNDED = 1e-3  # of a same top as it is printed; from chunk to chunk it is counted
OTHER_BUILD = {**KLD, "turbo4": 0.021}


def evaluated(folder: Path, named: list[Path | str], name: str) -> Path:
    """A document of an evaluation, and the report of it."""
    done = apart("eval", *named, *KV, "--report", folder / name, "--json", variables=private(folder))
    (folder / f"{name}.json").write_text(done.stdout)
    return folder / f"{name}.json"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of two builds; in the second one turbo4 is a little worse and a cell crashes. Made once, for speed."""
    folder = tmp_path_factory.mktemp("documents")
    named = make_eval_folder(folder)
    a = evaluated(folder, named, "one")
    eval_programs(folder / "bin", kld=OTHER_BUILD, trouble={"q8_0/q8_0/v": "SIGSEGV"})
    (folder / "bin" / "libggml.so").write_text("another build")
    return a, evaluated(folder, named, "other")


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    return lambda *words: typed(["eval", "compare", *words], capsys)


def edited(path: Path, target: Path, edit: Callable[[Any], object]) -> Path:
    """A copy of a document with something changed in it."""
    data = json.loads(path.read_text())
    edit(data)
    target.write_text(json.dumps(data))
    return target


def found(done: Done, statistic: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Differences by K type, V type and rotation."""
    return {
        (one["k"], one["v"], one["rotation"]): one
        for one in done.document["differences"]
        if one["statistic"] == statistic
    }


def test_help_tells_of_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    text = typed(["eval", "--help"], capsys).stdout
    assert "Usage: turbotool eval [OPTIONS] [MODEL]" in text
    assert "compare  Set two result sets side by side" in text
    assert "Usage: turbotool eval compare [OPTIONS] A B" in typed(["eval", "compare", "--help"], capsys).stdout


def test_two_builds_are_compared_cell_by_cell(documents: tuple[Path, Path], compare: Compare) -> None:
    done = compare(*documents, "--json", "--equal-kld", "1", "--equal-ppl", "0.05")
    assert (done.code, done.document["refused"]) == (0, [])
    assert [fact["what"] for fact in done.document["facts"]] == ["programs"]
    klds = found(done, "mean_kld")
    assert {cell: one["verdict"] for cell, one in klds.items()} == {
        ("q8_0", "q8_0", "off"): "identical",
        ("q8_0", "turbo4", "off"): "B worse",
        ("q8_0", "turbo4", "v"): "B worse",
        ("q4_0", "q4_0", "off"): "identical",
    }
    one = klds["q8_0", "turbo4", "off"]
    # 0.0105 and 0.011 times 1.01 to 1.04: the ratio is the same in each chunk, but for how means are rounded
    assert one["difference"] == pytest.approx(0.0005 * 1.025, abs=1e-6)
    assert 4e-6 < one["high"] - one["low"] < 1e-4
    assert one["finding"].startswith("B worse by at least 4.")
    assert (one["paired"], one["confidence"]) == (True, 0.95)
    assert found(done, "ln_ppl")["q8_0", "turbo4", "off"]["verdict"] == "B higher"
    assert found(done, "ln_ppl")["f16", "f16", "off"]["verdict"] == "identical"
    assert found(done, "median_kld")["q8_0", "turbo4", "off"]["verdict"] == "no interval"
    assert found(done, "same_top")["q8_0", "turbo4", "v"]["verdict"] == "equal"  # one token
    assert "programs: " in done.stderr


def test_what_is_in_one_set_only_is_listed(documents: tuple[Path, Path], compare: Compare, tmp_path: Path) -> None:
    done = compare(*documents, "--json")
    assert "q8_0 rotated v on text.txt: only in A; B: llama-perplexity ended with signal SIGSEGV" in done.stderr
    assert [(one["v"], one["rotation"]) for one in done.document["missing"]] == [("q8_0", "v")]
    short = edited(documents[0], tmp_path / "short.json", lambda data: data["cells"].pop())
    assert "q8_0/turbo4 rotated v on text.txt: only in B; A: not asked for" in compare(short, documents[0]).stdout


def test_a_report_says_all_of_it_and_names_no_folder(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    a, folder = documents[0], documents[0].with_suffix("")
    done = compare(a, folder, "--report", tmp_path / "report")
    assert done.code == 0
    text = (tmp_path / "report" / "compare.md").read_text(encoding="utf-8")
    assert all(statistic.title in text for statistic in STATISTICS)
    document = json.loads((tmp_path / "report" / "compare.json").read_text(encoding="utf-8"))
    assert {one["verdict"] for one in document["differences"]} == {"identical"}
    assert not any(str(path) in text + json.dumps(document) for path in (tmp_path, folder.parent))
    assert "programs, texts and machine are the same in both" in done.stdout
    assert "RMS" not in done.stdout
    assert "RMS" in compare(a, a, "-v").stdout


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda data: data["model"].update(name="b.gguf", sha256="0" * 64), "b.gguf (sha256 000000000000)"),
        (lambda data: data["corpora"][0].update(sha256="0" * 64), "they have no text in common: text.txt (sha256 "),
        (lambda data: data["settings"].update(ctx=256), "the tokens of a chunk are 512 and 256"),
        (lambda data: data["settings"].update(chunks=5), "the chunks of a text are 4 and 5"),
    ],
)
def test_sets_of_different_things_are_refused_with_the_difference(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path, edit: Callable[[Any], object], says: str
) -> None:
    done = compare(documents[0], edited(documents[0], tmp_path / "b.json", edit), "--json")
    assert done.code == done.document["error"]["code"] == ResultError.exit_code
    assert says in done.stderr


def test_a_text_of_one_set_only_is_left_out(documents: tuple[Path, Path], compare: Compare, tmp_path: Path) -> None:
    def another(data: Any) -> None:
        data["corpora"].append({"name": "other.txt", "sha256": "0" * 64})
        data["cells"] += [{**cell, "corpus": "other.txt"} for cell in data["cells"]]

    done = compare(documents[0], edited(documents[0], tmp_path / "b.json", another), "--json")
    assert {one["corpus"] for one in done.document["differences"]} == {"text.txt"}
    assert {one["corpus"] for one in done.document["missing"]} == {"other.txt"}
    assert "texts: text.txt in A, text.txt, other.txt in B" in done.stderr


def test_a_cell_that_ran_as_another_cache_is_not_compared(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    def unrotated(data: Any) -> None:
        data["cells"][1]["effective"]["attn_v"] = {"on": False, "size": None, "type": "q8_0", "reason": "default"}
        data["cells"][0]["effective"]["caches"][0]["mib"] = 9.0
        data["cells"][0]["effective"]["attn_v"]["reason"] = "another word for it"

    done = compare(documents[0], edited(documents[0], tmp_path / "b.json", unrotated), "--json")
    assert done.code == 0
    assert [(one["v"], one["rotation"]) for one in done.document["refused"]] == [("q8_0", "v")]
    assert "attn_v.on is True in A and False in B" in done.stderr
    assert ("q8_0", "q8_0", "v") not in found(done, "mean_kld")
    (unlike,) = done.document["effective"]
    assert (unlike["field"], unlike["b"], unlike["cells"]) == ("caches.0.mib", "9.0", 1)


def test_without_the_means_of_chunks_the_errors_of_both_are_used(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    def bare(data: Any) -> None:
        for cell in (*data["cells"], *data["controls"]["q4_0"]):
            cell["running"], cell["machine"] = {name: [] for name in cell["running"]}, ""
        data["cells"][2]["mean_kld"] += 0.0001

    done = compare(documents[0], edited(documents[0], tmp_path / "b.json", bare), "--json", "--equal-kld", "0")
    one = found(done, "mean_kld")["q8_0", "turbo4", "off"]
    assert (one["paired"], one["verdict"]) == (False, "unresolved")
    assert one["high"] - one["difference"] == pytest.approx(1.96 * 0.0001 * math.sqrt(2), rel=0.05)
    assert "machine: " not in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no turbotool.eval document: it is no object with fields"),
        ('{"ok": false, "error": {}}', "is no turbotool.eval document: it names no schema"),
        ('{"schema": "turbotool.error", "version": 1}', "its schema is 'turbotool.error'"),
        ('{"schema": "turbotool.models", "version": 1}', "is of several models"),
        ('{"ok": true, "models": []}', "was written by turbotool 0.1.0: it names no schema"),
    ],
)
def test_what_is_no_result_set_is_refused(compare: Compare, tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    done = compare(path, path)
    assert done.code == ResultError.exit_code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cell_of_an_unknown_type_or_rotation_is_refused(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    unknown = edited(documents[0], tmp_path / "b.json", lambda data: data["cells"][0].update(k="turbo9"))
    assert compare(documents[0], unknown).code == UnknownCacheType.exit_code
    unknown = edited(documents[0], tmp_path / "b.json", lambda data: data["cells"][0].update(rotation="q"))
    done = compare(documents[0], unknown)
    assert done.code == ResultError.exit_code
    assert "`$.cells[0].rotation`" in done.stderr


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda data: data["cells"][0].pop("k"), "missing required field `k` - at `$.cells[0]`"),
        (lambda data: data["cells"][0].update(k=4), "Expected `str`, got `int` - at `$.cells[0].k`"),
        (lambda data: data["cells"][0]["kld"].pop("50%"), "missing required field `50%` - at `$.cells[0].kld`"),
        (lambda data: data["cells"][0].update(corpus="other.txt"), "a text that it does not list: other.txt"),
        (lambda data: data["cells"][0]["running"]["ppl"].pop(), "not as many chunks in one figure as in another"),
        (lambda data: data["cells"][0].update(ppl=0), "damaged: 0 is no ppl"),
        (lambda data: data["cells"][0]["running"]["ppl"].__setitem__(1, -1.5), "damaged: -1.5 is no ppl"),
        (lambda data: data["cells"][0]["running"]["rms_dp"].__setitem__(0, 1e308), "damaged: 1e+308 is no rms_dp"),
        (lambda data: data.update(version=2), "is of version 2 of turbotool.eval, newer than 1"),
        (lambda data: data.pop("schema"), "was written by turbotool 0.1.0: it names no schema"),
    ],
)
def test_a_damaged_document_is_refused_with_the_place(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path, edit: Callable[[Any], object], says: str
) -> None:
    done = compare(documents[0], edited(documents[0], tmp_path / "b.json", edit), "--json")
    error = done.document["error"]
    assert (done.code, error["class"]) == (ResultError.exit_code, "ResultError")
    assert says in error["message"]
    assert len(error["message"].splitlines()) == 1
    assert error["hint"]


def test_a_measurement_comes_back_from_its_document() -> None:
    """But for the errors of running means, which are not in it."""
    columns = ("ppl", "ln_ratio", "kld", "rms_dp", "same_top")
    rows = MEASURED.divergence.running
    bare = tuple(Running(row.chunk, *(Estimate(getattr(row, name).value) for name in columns)) for row in rows)
    fields = statistics(replace(MEASURED, machine="m"))
    cell = CellFields(corpus="text", k="q8_0", v="turbo4", rotation="off", bits_per_value=6.4, **fields, failure=None)
    back = msgspec.convert(json.loads(json.dumps(plain(cell))), CellFields)
    assert measured_of(back) == Measured(replace(MEASURED.divergence, running=bare), MEASURED.effective, 1.5, "m")


def chunked(klds: Sequence[float], squares: Sequence[float], ppls: Sequence[float]) -> Measured:
    """A cell with those values of single chunks, its means rounded as the program rounds them."""
    rows = []
    for n in range(1, len(klds) + 1):
        kld, ppl = math.fsum(klds[:n]) / n, math.exp(math.fsum(map(math.log, ppls[:n])) / n)
        rms = Estimate(round(math.sqrt(math.fsum(squares[:n]) / n), 3))
        top = Estimate(round(100 - 100 * sum(round(1000 * one) for one in klds[:n]) / (n * scored(512)), 3))
        rows.append(Running(n, Estimate(round(ppl, 4)), Estimate(round(kld, 5)), Estimate(round(kld, 5)), rms, top))
    mean = Estimate(round(math.fsum(klds) / len(klds), 6), 0.001)
    return Measured(
        replace(
            MEASURED.divergence,
            mean=mean,
            ln_ratio=mean,
            ppl=Estimate(round(ppl, 6), 1.0),
            ppl_base=Estimate(ppl / math.exp(mean.value), 1.0),
            rms_dp=rows[-1].rms_dp,
            same_top=rows[-1].same_top,
            running=tuple(rows),
        ),
        parse_effective(""),
        1.0,
    )


@pytest.mark.parametrize("statistic", [*(one for one in STATISTICS if one.series), BASE], ids=lambda one: one.title)
def test_a_paired_interval_holds_the_difference_and_sees_what_chunks_agree_on(statistic: Any) -> None:
    """Chunks differ much from each other; B is a little more than A in each, which only pairs can tell."""
    klds = [0.01 * (1 + n % 3) for n in range(8)]
    a = chunked(klds, [one * 400 for one in klds], [20 + n for n in range(8)])
    b = chunked([one + 0.004 for one in klds], [one * 440 for one in klds], [20.5 + n * 1.02 for n in range(8)])
    exact = Equivalence(0.0, 0.0, 0.0)
    one = difference("text", Configuration(PAIR), statistic, a, b, 512, exact)
    assert one.paired
    assert one.judged is not None
    assert one.bounds is not None
    assert one.bounds[0] - ROUNDED <= one.difference <= one.bounds[1] + ROUNDED
    assert one.verdict.startswith("B ")
    assert " by at least " in one.told
    back = difference("text", Configuration(PAIR), statistic, b, a, 512, exact).judged
    assert back is not None
    assert (back.low, back.high) == pytest.approx((-one.judged.high, -one.judged.low))
    assert difference("text", Configuration(PAIR), statistic, a, a, 512, exact).verdict == "identical"


def test_what_changes_its_sign_from_chunk_to_chunk_is_unresolved_or_equal_within_what_is_asked() -> None:
    klds = [0.01] * 8
    a, b = chunked(klds, klds, klds), chunked([0.01 + 0.005 * (-1) ** n for n in range(7)] + [0.012], klds, klds)
    kld = STATISTICS[0]
    found = difference("text", Configuration(PAIR), kld, a, b, 512, Equivalence())
    assert found.verdict == "unresolved"
    assert re.fullmatch(r"unresolved: about \d+ chunks more", found.told)
    assert difference("text", Configuration(PAIR), kld, a, b, 512, Equivalence(kld=100.0)).told == "equal within 100 %"


def uncalibrated(data: Any, *, older: bool) -> None:
    """Make a document one of caches that are not calibrated: as it is written today, or before there were any."""
    for cell in (*data["cells"], *data["controls"]["q4_0"]):
        off = {"on": False, "k": cell["k"], "v": cell["v"], "reason": "asked for"}
        cell["calibration"] = "off"
        if cell["effective"]:
            cell["effective"]["calibrations"] = [off]
        if older:
            del cell["calibration"], cell["calibration_sha256"]
            if cell["effective"]:
                del cell["effective"]["calibrations"]


def test_results_that_are_older_than_calibrations_are_those_without(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    today = edited(documents[0], tmp_path / "today.json", lambda data: uncalibrated(data, older=False))
    older = edited(documents[0], tmp_path / "older.json", lambda data: uncalibrated(data, older=True))
    same = compare(older, today, "--json").document
    assert (same["refused"], same["missing"], same["effective"]) == ([], [], [])
    assert {one["verdict"] for one in same["differences"]} == {"identical"}
    assert {one["calibration"] for one in same["differences"]} == {"off"}
    apart_from = compare(older, documents[0], "--json").document
    assert {one["calibration"] for one in apart_from["missing"]} == {"off", "auto"}


def test_a_cell_that_ran_calibrated_in_one_set_alone_is_refused_and_another_hash_is_told(
    documents: tuple[Path, Path], compare: Compare, tmp_path: Path
) -> None:
    def not_on(data: Any) -> None:
        data["cells"][0]["effective"]["calibrations"][0].update(on=False, hash=None, reason="a whim")

    def other(data: Any) -> None:
        data["cells"][0]["effective"]["calibrations"][0].update(hash="ff" * 8, source="elsewhere")

    refused = compare(documents[0], edited(documents[0], tmp_path / "b.json", not_on), "--json").document["refused"]
    assert [(one["k"], one["rotation"]) for one in refused] == [("q8_0", "off")]
    assert "calibrations.0.on is True in A and unknown in B" in refused[0]["reason"]
    told = compare(documents[0], edited(documents[0], tmp_path / "c.json", other), "--json").document
    assert (told["refused"], [one["field"] for one in told["effective"]]) == ([], ["calibrations.0.hash"])
