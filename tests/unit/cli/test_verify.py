"""`turbotool verify` as it is typed, on fake programs: what it prints, writes and ends with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import Done, private, typed
from fake_verify import verify_programs
from tiny_gguf import gguf, write

from turbotool.errors import ArchiveError, CorpusError, ModelError, ToolMissing, UsageMistake, VerificationFailed
from turbotool.verify.registry import CHECKS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

CHOSEN = ("--check", "kv-buffer-size", "--check", "head-size-guard", "--check", "device-driver")


@dataclass(frozen=True)
class Site:
    """A folder with a model, a text and programs, and the command line in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def verify(self, *words: str | Path, trouble: str = "") -> Done:
        bin_dir = verify_programs(self.folder / "bin", trouble, layers=2, heads=1)
        named = ("--model", self.folder / "model.gguf", "--corpus", self.folder / "text.txt", "--bin-dir", bin_dir)
        return typed(["verify", *named, *words], self.capsys)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, gguf())
    (tmp_path / "text.txt").write_text("word " * 5000)
    return Site(tmp_path, capsys)


def rows(done: Done) -> dict[str, str]:
    """The line of the table for each check: on stdout, or on stderr beside a document."""
    lines = [line.split() for line in f"{done.stdout}\n{done.stderr}".splitlines()]
    return {words[1]: words[0] for words in lines if words and words[0] in ("ok", "FAIL", "skip")}


def test_checks_that_pass_end_with_zero_and_a_skipped_one_is_no_failure(site: Site) -> None:
    done = site.verify(*CHOSEN)
    assert done.code == 0, done.stderr
    assert rows(done) == {"device-driver": "skip", "kv-buffer-size": "ok", "head-size-guard": "ok"}
    assert "verified: 2 checks passed, 1 skipped in" in done.stdout


def test_only_skipped_checks_prove_nothing(site: Site) -> None:
    done = site.verify("--check", "device-driver")
    assert (done.code, rows(done)) == (VerificationFailed.exit_code, {"device-driver": "skip"})
    assert "error: nothing was proven: every check was skipped: device-driver\n" in done.stderr


def test_the_document_has_each_check_in_the_order_of_the_list_and_what_was_verified(site: Site) -> None:
    found = site.verify(*CHOSEN, "--quick", "--json").document
    assert [check["name"] for check in found["checks"]] == ["device-driver", "kv-buffer-size", "head-size-guard"]
    assert [(check["ok"], check["skipped"]) for check in found["checks"]] == [
        (False, True),
        (True, False),
        (True, False),
    ]
    assert (found["ok"], found["quick"], found["backend"], found["tree"]) == (True, True, "cpu", "")
    named = {"bin_dir": "bin", "model": "model.gguf", "corpus": "text.txt"}
    assert {name: found[name] for name in named} == {name: str(site.folder / at) for name, at in named.items()}
    assert "llama-completion" in Path(found["log"]).read_text(encoding="utf-8")
    # 2 layers with a head of 64 on each side, 2048 cells
    assert found["checks"][1]["value"] == pytest.approx(2 * 2 * 64 * 4.25 / 8 * 2048 / 2**20, abs=0.006)


def test_a_check_that_fails_is_told_with_its_reason_and_ends_with_the_code_of_the_error(site: Site) -> None:
    done = site.verify(*CHOSEN, "--json", trouble="pads")
    assert done.code == VerificationFailed.exit_code == done.document["error"]["code"] == 3
    assert done.document["ok"] is False
    assert rows(done) == {"device-driver": "skip", "kv-buffer-size": "FAIL", "head-size-guard": "ok"}
    assert "      | turbo3 takes " in done.stderr
    assert "error: 1 of 3 checks failed: kv-buffer-size" in done.stderr
    assert f"try: read {done.document['log']}" in done.stderr


def test_nothing_but_skipped_checks_is_no_pass(site: Site) -> None:
    done = site.verify("--check", "device-driver", "--json")
    assert (done.code, done.document["ok"]) == (VerificationFailed.exit_code, False)


@pytest.mark.parametrize(("trouble", "failures"), [("", "0"), ("pads", "1")])
def test_the_report_is_written_whether_checks_pass_or_fail(site: Site, trouble: str, failures: str) -> None:
    report = site.folder / "reports" / "verify.xml"
    site.verify(*CHOSEN, "--report", report, trouble=trouble)
    suite = ElementTree.parse(report).find("testsuite")  # noqa: S314 (our own file)
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", failures, "1"]
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties["model"] == str(site.folder / "model.gguf")


def test_the_list_names_every_check_and_runs_none(site: Site) -> None:
    done = typed(["verify", "--list", "--json"], site.capsys)
    assert done.code == 0
    assert [check["name"] for check in done.document["checks"]] == [spec.name for spec in CHECKS]
    assert [check["quick"] for check in done.document["checks"]] == [spec.quick for spec in CHECKS]
    assert all(spec.about in done.stderr for spec in CHECKS)
    assert {path.name for path in site.folder.iterdir()} == {"model.gguf", "text.txt"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--check", "kv-bufer-size"], 2, "did you mean 'kv-buffer-size'?"),
        (["--package", "a.tar.gz"], 2, "--package and --bin-dir exclude each other"),
        (["--model", "nowhere.gguf"], ModelError.exit_code, "nowhere.gguf"),
        (["--corpus", "nowhere.txt"], CorpusError.exit_code, "nowhere.txt"),
        (["--bin-dir", "nowhere"], ToolMissing.exit_code, "there is no folder nowhere"),
        (["--wrapper", "no-such-emulator"], ToolMissing.exit_code, "there is no no-such-emulator"),
        (["--wrapper", "'"], 2, "No closing quotation"),
        (["--report", "."], UsageMistake.exit_code, "cannot write to .: it is a folder"),
        (["--report", "model.gguf/verify.xml"], UsageMistake.exit_code, "model.gguf"),
    ],
)
def test_a_mistake_is_refused_before_any_program_runs(site: Site, words: list[str], code: int, says: str) -> None:
    done = site.verify(*words, "--json")
    assert (done.code, says in done.stderr) == (code, True), done.stderr
    assert not list((site.folder / "work").rglob("verify.log"))
    assert done.document["error"]["code"] == code


@pytest.mark.parametrize("archive", ["nowhere.tar.gz", "."])
def test_an_archive_that_is_not_there_is_told(site: Site, archive: str) -> None:
    done = typed(["verify", "--package", archive, "--model", site.folder / "model.gguf", "--json"], site.capsys)
    assert done.code == ArchiveError.exit_code
    assert "there is no archive " in done.document["error"]["message"]


def test_a_hint_about_an_archive_names_no_option_that_verify_lacks(site: Site) -> None:
    (site.folder / "a.tar.gz").write_text("no archive")
    done = typed(["verify", "--package", "a.tar.gz", "--model", site.folder / "model.gguf", "--json"], site.capsys)
    assert (done.code, "--path" in done.document["error"]["hint"]) == (ArchiveError.exit_code, False)


def test_a_model_that_the_programs_cannot_run_fails_its_checks_and_no_other(site: Site) -> None:
    done = site.verify("--check", "kv-buffer-size", "--check", "head-size-guard", trouble="layers")
    assert done.code == VerificationFailed.exit_code
    assert rows(done) == {"kv-buffer-size": "FAIL", "head-size-guard": "ok"}
