"""`turbotool calibrate` from the command line to its file and its page, with fake programs whose KLD is known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, apart, private, typed
from fake_calibrate import calibrate_programs, calibration_file, calibrations
from fake_eval import eval_runs
from html_page import Page
from tiny_gguf import gguf, gguf_of, write

from turbotool.errors import (
    BinaryFailed,
    ConfigurationMismatch,
    CorpusError,
    ModelError,
    NoSpace,
    ToolMissing,
    UnknownCacheType,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

SMALL = ("--ctx", "128", "--no-plot")


@dataclass(frozen=True)
class CalibrateSite:
    """A folder with a model, a text, programs and a work folder, and the command line in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def model(self) -> Path:
        return self.folder / "model.gguf"

    @property
    def file(self) -> Path:
        return self.folder / "model.kvcal.gguf"

    def words(self, *words: str | Path) -> list[str | Path]:
        text: list[str | Path] = [] if "--corpus" in words else ["--corpus", self.folder / "text.txt"]
        return ["calibrate", self.model, *text, "--bin-dir", self.folder / "bin", *SMALL, *words]

    def calibrate(self, *words: str | Path) -> Done:
        return typed(self.words(*words), self.capsys)

    def runs(self) -> list[str]:
        """The cells that llama-perplexity compared, in order."""
        return [one["cell"] for one in eval_runs(self.folder) if one["what"] == "cell"]


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CalibrateSite:
    write(tmp_path, gguf())
    (tmp_path / "text.txt").write_text("".join(f"w{number}\n" for number in range(2000)))
    calibrate_programs(tmp_path / "bin")
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    return CalibrateSite(tmp_path, capsys)


def test_the_file_stands_beside_the_model_and_the_check_says_what_it_gives(here: CalibrateSite) -> None:
    done = here.calibrate("--json")
    assert done.code == 0, done.stderr
    assert here.file.read_bytes() == calibration_file()
    found = done.document
    assert (found["calibration"], found["embedded"], found["replaced"]) == (str(here.file), False, False)
    assert (found["tokens"], found["sequences"], found["positions"]) == (8 * 128, 8, 128)
    assert found["gain"] == pytest.approx(4.0)
    assert [layer["layer"] for layer in found["layers"]] == [0, 1]
    layer = found["layers"][1]
    assert (layer["heads"], layer["largest_share_before"], layer["largest_share_after"]) == ([2.0, 8.0], 0.85, 0.25)
    check = found["check"]
    assert (check["k"], check["v"], check["ctx"], check["chunks"]) == ("turbo4", "turbo4", 128, 4)
    assert (check["ratio"], check["verdict"]) == (pytest.approx(0.4, abs=1e-4), "better")
    assert check["on"]["mean_kld"] < check["off"]["mean_kld"]
    assert here.runs() == ["turbo4/turbo4/off", "turbo4/turbo4/off calibrated"]
    assert found["page"] is None


def test_people_are_told_gains_and_verdict_and_what_to_type(here: CalibrateSite) -> None:
    done = here.calibrate("--cache", "q8_0/turbo4")
    lines = done.stdout.splitlines()
    assert lines[0] == "model.gguf: measured on 1024 tokens, 8 sequences of 128; figures for a context of 128"
    assert "0      4.00 (2.00 - 8.00)" in lines
    assert "all    4.00 (2.00 - 8.00)" in lines
    assert "q8_0/turbo4 against f16 on 4 chunks of 128 tokens that were held back" in lines
    assert "0.400 ± 0.010 times the KLD: better" in lines
    assert lines[-1] == f"  llama-server -m {here.model} -ctk q8_0 -ctv turbo4 --kv-calibration auto"
    assert f"wrote {here.file}" in done.stderr
    assert "calibrate: 8/8" in done.stderr
    assert "check: 3/3" in done.stderr


def test_it_is_measured_without_a_calibration_and_the_texts_are_removed(here: CalibrateSite) -> None:
    here.calibrate("--sequences", "5")
    (measured,) = calibrations(here.folder)
    assert (measured["env"], measured["-c"], measured["--chunks"]) == ("off", "128", "5")
    assert measured["text"].startswith("w0\n")
    assert list((here.folder / "work" / "vendor" / ".turbotool" / "scratch").iterdir()) == []


def test_a_calibration_of_before_is_replaced_and_that_is_said(here: CalibrateSite) -> None:
    here.calibrate()
    again = here.calibrate("--json")
    assert again.document["replaced"]
    assert f"replaced {here.file}" in again.stderr


def test_a_copy_of_the_model_holds_it_and_is_what_the_check_runs(here: CalibrateSite) -> None:
    copy = here.folder / "new" / "copy.gguf"
    done = here.calibrate("--embed", copy, "--json")
    assert done.code == 0, done.stderr
    assert copy.read_bytes() == here.model.read_bytes() + b"calibrated"
    assert [path.name for path in copy.parent.iterdir()] == ["copy.gguf"]
    assert not here.file.exists()
    assert done.document["embedded"]
    assert f"-m {copy}" in done.stderr
    assert "--kv-calibration auto" in done.stderr
    assert [one["words"][1] for one in eval_runs(here.folder)] == [*[str(here.model)] * 3, str(copy)]


def test_another_place_is_named_to_those_who_serve(here: CalibrateSite) -> None:
    target = here.folder / "mine.gguf"
    done = here.calibrate("--out", target)
    assert target.read_bytes() == calibration_file()
    assert done.stdout.endswith(f"--kv-calibration {target}\n")


def test_no_check_is_said_and_needs_no_llama_perplexity(here: CalibrateSite) -> None:
    (here.folder / "bin" / "llama-perplexity").unlink()
    done = here.calibrate("--no-check")
    assert done.code == 0, done.stderr
    assert "not checked (--no-check)" in done.stdout
    assert here.runs() == []
    assert here.calibrate("--no-check", "--json").document["check"] is None


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "worse"), (1.0, "not resolved"), (1.004, "not resolved")])
def test_the_verdict_is_honest(here: CalibrateSite, factor: float, verdict: str) -> None:
    calibrate_programs(here.folder / "bin", factor=factor)
    done = here.calibrate("--json")
    assert (done.code, done.document["check"]["verdict"]) == (0, verdict)
    assert (f"remove {here.file}" in done.stderr) == (verdict == "worse")


def test_figures_that_are_not_finite_resolve_nothing(here: CalibrateSite) -> None:
    calibrate_programs(here.folder / "bin", trouble={"turbo4/turbo4/off": "nan"})
    check = here.calibrate("--json").document["check"]
    assert (check["ratio"], check["verdict"], check["off"]["mean_kld"]) == (None, "not resolved", None)


def test_texts_that_give_less_than_was_asked_for_are_told(here: CalibrateSite) -> None:
    (here.folder / "text.txt").write_text("longer-word " * 1200)
    done = here.calibrate()
    assert done.code == 0, done.stderr
    assert "the text gave 6 sequences of 128 tokens, not 8" in done.stderr
    assert "the text that was held back gave 3 chunks of 128 tokens, not 4" in done.stderr
    assert "on 3 chunks of 128 tokens" in done.stdout


def no_attention(folder: Path) -> None:
    write(folder, gguf_of("mamba", {"attention.head_count": 0, "attention.head_count_kv": 0, "ssm.conv_kernel": 4}))


def narrow(folder: Path) -> None:
    write(folder, gguf_of("llama", {"embedding_length": 64}))


def nothing(folder: Path) -> None:
    pass


def damaged(folder: Path) -> None:
    write(folder, gguf()[:40])


def short(folder: Path) -> None:
    (folder / "text.txt").write_text("too short\n")


def latin(folder: Path) -> None:
    (folder / "text.txt").write_bytes(b"\xe4" * 10000)


def other_file(folder: Path) -> None:
    (folder / "model.kvcal.gguf").write_text("something else")


def parts(folder: Path) -> None:
    for number in (1, 2):
        shutil.copy(folder / "model.gguf", folder / f"m-0000{number}-of-00002.gguf")


@pytest.mark.parametrize(
    ("prepare", "words", "code", "complaint"),
    [
        (damaged, [], ModelError.exit_code, "truncated"),
        (no_attention, [], ModelError.exit_code, "no attention"),
        (narrow, [], ModelError.exit_code, "cannot have a turbo4 cache"),
        (short, [], CorpusError.exit_code, "at most 11 tokens; 8 sequences of 128 tokens to calibrate and 4"),
        (latin, [], CorpusError.exit_code, "is not UTF-8"),
        (nothing, ["--corpus", "nowhere.txt"], CorpusError.exit_code, "cannot read the text"),
        (nothing, ["--out", "a.gguf", "--embed", "b.gguf"], 2, "exclude each other"),
        (nothing, ["--embed", "model.gguf"], 2, "is what is read"),
        (nothing, ["--out", "model.gguf"], 2, "is what is read"),
        (nothing, ["--out", "text.txt"], 2, "is what is read"),
        (nothing, ["--out", "bin"], 2, "it is a folder"),
        (nothing, ["--out", "text.txt/x.gguf"], 2, "cannot write to"),
        (other_file, [], 2, "is no calibration, and is not overwritten"),
        (nothing, ["--cache", "turbo5"], UnknownCacheType.exit_code, "did you mean 'turbo4'?"),
        (nothing, ["--cache", "f16/turbo4"], 2, "f16/turbo4 is not calibrated: its K is not quantized"),
        (nothing, ["--ctx", "127"], 2, "127 is not in the range"),
        (nothing, ["--chunks", "1"], 2, "1 is not in the range"),
        (nothing, ["--sequences", "0"], 2, "0 is not in the range"),
        (nothing, ["--bin-dir", "work"], ToolMissing.exit_code, "has no llama-kv-calibrate"),
        (nothing, ["--report", "a"], 2, "--report and --no-plot exclude each other"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_measured(
    here: CalibrateSite,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], None],
    words: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(here.folder)
    (here.folder / "work").mkdir()
    prepare(here.folder)
    done = here.calibrate(*words)
    assert done.code == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert calibrations(here.folder) == eval_runs(here.folder) == []
    assert code == 2 or "try: " in done.stderr


def test_a_model_in_parts_has_no_copy(here: CalibrateSite) -> None:
    parts(here.folder)
    words = here.words("--embed", here.folder / "b.gguf")
    done = typed([words[0], here.folder / "m-00001-of-00002.gguf", *words[2:]], here.capsys)
    assert done.code == ModelError.exit_code
    assert "one of several parts" in done.stderr


def test_a_copy_needs_room(here: CalibrateSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1 << 20))
    done = here.calibrate("--embed", here.folder / "copy.gguf", "--no-check")
    assert (done.code, calibrations(here.folder)) == (NoSpace.exit_code, [])
    assert "a copy of the model needs about 64 MiB" in done.stderr


def test_a_link_to_the_model_is_the_model(here: CalibrateSite) -> None:
    link = here.folder / "link.gguf"
    link.symlink_to(here.model)
    assert here.calibrate("--embed", link).code == 2
    assert here.model.read_bytes() == gguf()


@pytest.mark.parametrize(
    ("behaviour", "error", "complaint"),
    [
        ({"calibrate": "refuses"}, BinaryFailed, "the model has no K that can be calibrated"),
        ({"calibrate": "no-file"}, BinaryFailed, "wrote no calibration"),
        ({"calibrate": '{"version": 1}'}, BinaryFailed, "statistics that cannot be used"),
    ],
)
def test_a_program_that_fails_leaves_no_file(
    here: CalibrateSite, behaviour: dict[str, Any], error: type[BinaryFailed], complaint: str
) -> None:
    here.file.write_bytes(calibration_file() + b"of before")
    calibrate_programs(here.folder / "bin", **behaviour)
    done = here.calibrate()
    assert done.code == error.exit_code
    assert complaint in done.stderr
    assert here.file.read_bytes() == calibration_file() + b"of before"
    assert here.runs() == []


def test_a_copy_that_was_not_written_leaves_nothing(here: CalibrateSite) -> None:
    calibrate_programs(here.folder / "bin", calibrate="no-copy")
    done = here.calibrate("--embed", here.folder / "new" / "copy.gguf")
    assert done.code == BinaryFailed.exit_code
    assert list((here.folder / "new").iterdir()) == []


def test_a_check_without_the_calibration_is_refused_and_the_file_stays(here: CalibrateSite) -> None:
    calibrate_programs(here.folder / "bin", trouble={f"turbo4/turbo4/off {here.file}": "unmeasured"})
    done = here.calibrate("--json")
    assert done.code == ConfigurationMismatch.exit_code
    assert "the cache is not calibrated (not measured)" in done.document["error"]["message"]
    assert here.file.is_file()


def test_a_copy_that_is_calibrated_with_something_else_is_refused(here: CalibrateSite) -> None:
    calibrate_programs(here.folder / "bin", source="measured on 256 tokens in 0.57 s, not kept")
    done = here.calibrate("--embed", here.folder / "copy.gguf", "--json")
    assert done.code == ConfigurationMismatch.exit_code
    message = done.document["error"]["message"]
    assert "the calibration embedded in copy.gguf, and reports measured on 256 tokens" in message


def test_ctrl_c_leaves_the_file_of_before(here: CalibrateSite) -> None:
    here.file.write_bytes(calibration_file() + b"of before")
    calibrate_programs(here.folder / "bin", calibrate="interrupt")
    done = apart(*here.words("--json"), variables=private(here.folder), timeout=60)
    assert (done.code, done.document["error"]["class"]) == (130, "Interrupted")
    assert here.file.read_bytes() == calibration_file() + b"of before"


def test_the_page_shows_the_channels_and_names_no_folder(here: CalibrateSite) -> None:
    pytest.importorskip("matplotlib")
    words = [word for word in here.words("--json") if word != "--no-plot"]
    done = typed(words, here.capsys)
    page = here.folder / "work" / "build" / "calibrate" / "model" / "calibration.html"
    assert done.document["page"] == str(page)
    assert f"report: {page}" in done.stderr
    text = page.read_text(encoding="utf-8")
    read = Page(text)
    assert str(here.folder) not in text
    assert read.open == []
    assert all(one.startswith(("#", "data:image/png")) for one in read.fetched)
    assert text.count("<svg") == 4  # three of the channels, and the gains
    assert ["1", "4.00 (2.00 - 8.00)"] in read.rows
    assert "times the KLD: better" in text
    assert "--out model.kvcal.gguf --cache turbo4 --chunks 4 --bin-dir BIN_DIR" in text


def test_the_page_goes_where_it_is_asked_for(here: CalibrateSite) -> None:
    pytest.importorskip("matplotlib")
    words = [word for word in here.words("--report", here.folder / "text.txt") if word != "--no-plot"]
    assert (typed(words, here.capsys).code, calibrations(here.folder)) == (2, [])
    words = [word for word in here.words("--no-check", "--report", here.folder / "a") if word != "--no-plot"]
    assert typed(words, here.capsys).code == 0
    assert "Not checked on other text" in (here.folder / "a" / "calibration.html").read_text(encoding="utf-8")


def test_without_the_libraries_a_page_that_was_asked_for_is_refused_and_another_left_out(
    here: CalibrateSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = [word for word in here.words("--no-check") if word != "--no-plot"]
    refused = typed([*words, "--report", here.folder / "a"], here.capsys)
    assert (refused.code, calibrations(here.folder)) == (ToolMissing.exit_code, [])
    done = typed([*words, "--json"], here.capsys)
    assert (done.code, done.document["page"]) == (0, None)
    assert "no page with plots" in done.stderr
    assert "pip install 'matplotlib>=3.8'" in done.stderr


def test_several_texts_are_all_in_what_is_measured(here: CalibrateSite) -> None:
    (here.folder / "b.txt").write_text("".join(f"b{number}\n" for number in range(2000)))
    here.calibrate("--corpus", here.folder / "text.txt", "--corpus", here.folder / "b.txt")
    first = calibrations(here.folder)[0]["text"].split()[: 8 * 128]
    assert {word[0] for word in first} == {"w", "b"}


def test_the_document_repeats_the_command_without_folders(here: CalibrateSite) -> None:
    found = here.calibrate("--json", "--embed", here.folder / "c.gguf", "--sequences", "3", "--no-check").document
    assert found["command"] == (
        "turbotool calibrate model.gguf --corpus text.txt --ctx 128 --sequences 3 --embed c.gguf --no-check "
        "--bin-dir BIN_DIR"
    )
    assert json.dumps(found).count(str(here.folder)) == 3  # model, calibration, log
