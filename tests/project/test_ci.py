"""The release matrix, the scripts that workflows call, and what workflows may do."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import variables_of
from fake_package import EPOCH
from tiny_series import Project, release

from turbotool import __version__
from turbotool.build.backends import BACKENDS
from turbotool.layout import find_layout
from turbotool.release.pack import Member, write_archive
from turbotool.release.package import MAX_GLIBC
from turbotool.upstream.lock import Upstream, read_lock, write_upstream
from turbotool.upstream.tree import ensure_vendored

pytest.importorskip("tomllib", reason="the scripts of workflows run on Python 3.11 and newer")
import each_patch
import package
import publish
import rehearse
import wheel
from matrix import read_targets

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ASKED = {
    *("linux-x64-cpu", "linux-x64-cuda", "linux-x64-vulkan", "linux-arm64-cpu"),
    *("macos-arm64-metal", "windows-x64-cpu", "windows-x64-cuda", "windows-x64-vulkan"),
}


def test_the_matrix_holds_every_target_once_and_only_known_backends() -> None:
    targets = read_targets()
    assert targets.keys() == ASKED
    assert {target.backend for target in targets.values()} <= BACKENDS.keys()


ROW = {"runner": '"r"', "platform": '"p"', "backend": '"b"'}


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (ROW, None),
        *(({name: value for name, value in ROW.items() if name != missing}, missing) for missing in ROW),
        ({**ROW, "instal": '["x"]'}, "instal"),
    ],
)
def test_a_row_with_a_missing_or_an_unknown_field_is_refused_by_the_name_of_the_field(
    tmp_path: Path, row: dict[str, str], names: str | None
) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text("[[target]]\n" + "".join(f"{name} = {value}\n" for name, value in row.items()))
    if names is None:  # what the others differ from
        assert list(read_targets(file)) == ["p-b"]
    else:
        with pytest.raises(TypeError, match=f"'{names}'"):
            read_targets(file)


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text('[[target]]\nrunner = "r"\nplatform = "p"\nbackend = "b"\n' * 2)
    with pytest.raises(ValueError, match="two targets p-b"):
        read_targets(file)


def test_what_the_workflow_reads_is_a_line_of_json_for_each_job() -> None:
    done = subprocess.run([sys.executable, "ci/matrix.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    outputs = dict(line.split("=", 1) for line in done.stdout.splitlines())
    named = {output: {row["name"] for row in json.loads(value)} for output, value in outputs.items()}
    assert named == {"targets": ASKED, "again": {"linux-x64-cpu", "linux-arm64-cpu"}}


def test_archives_for_linux_are_built_where_ubuntu_22_04_can_run_them() -> None:
    assert MAX_GLIBC == "2.35"
    linux = [target for name, target in read_targets().items() if name.startswith("linux")]
    assert {target.runner for target in linux} == {"ubuntu-22.04", "ubuntu-22.04-arm"}
    assert not [target.name for target in linux if "--max-glibc" in target.options]


def made(dist: Path) -> list[dict[str, Any]]:
    """An archive, a wheel and their record for every target."""

    def file(name: str) -> dict[str, Any]:
        (dist / name).write_bytes(name.encode())
        return {"archive": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "bytes": 3 << 20}

    records = []
    for name in read_targets():
        records.append({"name": name, **file(f"{name}.tar.gz"), "passed": 20, "wheel": file(f"{name}.whl")})
        (dist / f"{name}.json").write_text(json.dumps(records[-1]))
    return records


def test_notes_name_upstream_each_archive_and_why_each_patch_exists(tmp_path: Path) -> None:
    records = made(tmp_path)
    assert publish.collect(tmp_path, list(read_targets().values())) == records
    text = publish.notes(find_layout(), records)
    lock = read_lock(find_layout()).upstream
    assert f"llama.cpp {publish.link(lock)}{f' of {lock.date}' if lock.date else ''} with " in text
    assert f"turbotool {__version__}" in text
    assert all(f"| {record['archive']} | 3.0 | 20 | `{record['sha256']}` |" in text for record in records)
    assert all(f"| {wheel['archive']} | 3.0 | `{wheel['sha256']}` |" in text for wheel in every_wheel(records))
    assert len(re.findall(r"^- \*\*.+\*\* \((?:feature|fix|portability); drop when: .+\)$", text, re.MULTILINE)) == (
        len((ROOT / "patches/series").read_text().replace("#", " ").split(".patch")) - 1
    )


def every_wheel(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["wheel"] for record in records]


def test_notes_call_upstream_what_is_known_of_it() -> None:
    tree, commit = "ab" * 20, "cd" * 20
    home = "https://github.com/ggml-org/llama.cpp"
    assert publish.link(Upstream("pypi", tree, commit=commit)) == f"[`cdcdcdcdc`]({home}/commit/{commit})"
    assert publish.link(Upstream("pypi", tree, tag="b11549")) == f"[`b11549`]({home}/tree/b11549)"
    assert publish.link(Upstream("archive", tree)) == "tree `ababababa`"


def test_sums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    records = made(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(publish.sums(records))
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2 * len(records)
    program = shutil.which("sha256sum")
    if not program:
        pytest.skip("there is no sha256sum")
    done = subprocess.run([program, "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_missing_and_an_altered_file_are_not_published(tmp_path: Path) -> None:
    made(tmp_path)
    targets = list(read_targets().values())
    for name in ("linux-x64-cpu.whl", "linux-x64-cpu.tar.gz"):
        (tmp_path / name).write_bytes(b"another")
        with pytest.raises(SystemExit, match=rf"^{name} has .* its record says"):
            publish.collect(tmp_path, targets)
    (tmp_path / "linux-x64-cpu.json").unlink()
    with pytest.raises(SystemExit, match=r"ci/package\.py linux-x64-cpu"):
        publish.collect(tmp_path, targets)


def test_a_tag_that_is_not_the_version_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "ci/publish.py", "v9.9.9", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "they must agree" in done.stderr


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """An empty folder, and a turbotool that makes an archive or a wheel and verifies it; what it was asked."""
    asked: list[tuple[str, ...]] = []
    archive, whl = tmp_path / "made.tar.gz", tmp_path / "made.whl"
    write_archive(archive, "made", {"sbom.cdx.json": Member(b"bill"), "bin/a": Member(b"1")}, EPOCH)
    write_archive(whl, "", {"lib/a": Member(b"1")}, EPOCH)

    def turbotool(*words: str | Path, env: object) -> dict[str, object]:
        asked.append(tuple(map(str, words)))
        if words[0] == "package":
            file = whl if "wheel" in words else archive
            return {"archive": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        return {"checks": [{"ok": True}, {"ok": True}]}

    monkeypatch.setattr(package, "turbotool", turbotool)
    monkeypatch.chdir(tmp_path)
    return asked


def test_a_target_is_packaged_and_what_is_in_the_archive_is_verified(site: list[tuple[str, ...]]) -> None:
    package.package(replace(read_targets()["linux-x64-vulkan"], options=("--max-glibc", "2.28")))
    first, second, third = site
    assert first == ("package", "--backend", "vulkan", "--platform", "linux-x64", "--max-glibc", "2.28")
    assert second[:3] == ("verify", "--package", str(Path("made.tar.gz").absolute()))
    assert third == (*first, "--format", "wheel")
    record = json.loads(Path("dist/linux-x64-vulkan.json").read_text())
    assert (record["passed"], record["archive"], record["wheel"]["archive"]) == (2, "made.tar.gz", "made.whl")
    assert Path("dist/made.tar.gz").is_file()
    assert Path("dist/made.whl").is_file()
    assert Path("dist/made.cdx.json").read_bytes() == b"bill"


def test_target_that_is_built_again_must_have_the_same_bytes(
    site: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    target = read_targets()["linux-x64-cpu"]
    package.package(target)
    package.again(target)
    words = ("package", "--backend", "cpu", "--platform", "linux-x64")
    assert site[-2:] == [(*words, "--no-verify"), (*words, "--format", "wheel", "--no-verify")]
    said = capsys.readouterr().out
    assert "made.tar.gz: the same " in said
    assert "made.whl: the same " in said
    write_archive(Path("made.whl"), "", {"lib/a": Member(b"2")}, EPOCH)
    with pytest.raises(SystemExit, match=r"again, made\.whl has .* what differs: lib/a$"):
        package.again(target)
    write_archive(Path("made.tar.gz"), "made", {"sbom.cdx.json": Member(b"bill"), "bin/a": Member(b"2")}, EPOCH)
    with pytest.raises(SystemExit, match=r"what differs: bin/a$"):
        package.again(target)
    write_archive(Path("made.tar.gz"), "made", {"sbom.cdx.json": Member(b"bill"), "bin/a": Member(b"1")}, EPOCH + 1)
    with pytest.raises(SystemExit, match="the archive itself, not what it holds"):
        package.again(target)


@pytest.mark.parametrize("name", ["made.tar.gz", "made.zip", "made.whl"])
def test_what_an_archive_holds_is_read_whatever_its_format(tmp_path: Path, name: str) -> None:
    write_archive(tmp_path / name, "" if name == "made.whl" else "made", {"bin/a": Member(b"1")}, EPOCH)
    assert package.contents(tmp_path / name) == {"bin/a": b"1"}


@pytest.mark.parametrize(
    ("told", "said"),
    [({}, None), ({"tag": "v9.9.9"}, "attested for v9.9.9"), ({"sha256": "0" * 64}, "sha256 0000")],
)
def test_archive_is_published_only_if_fetch_takes_it_for_this_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], said: str | None
) -> None:
    records, asked = made(tmp_path), []
    by_name = {record["archive"]: record["sha256"] for record in records}

    def turbotool(*words: str | Path) -> dict[str, object]:
        asked.append(words)
        beside = Path(f"{words[1]}.provenance.json")
        assert beside.read_text() == "signed"
        return {"tag": "v1.0.0", "sha256": by_name[Path(words[1]).name], **told}

    monkeypatch.setattr(publish, "turbotool", turbotool)
    monkeypatch.setenv("GITHUB_REPOSITORY", "fork/turbotool")
    with pytest.raises(SystemExit, match="the job that attests writes it"):
        publish.attest(tmp_path, records, "v1.0.0")
    (tmp_path / "attestation.json").write_text("signed")
    if said:
        with pytest.raises(SystemExit, match=said):
            publish.attest(tmp_path, records, "v1.0.0")
        return
    names = {path.name for path in publish.attest(tmp_path, records, "v1.0.0")}
    stems = [record["name"] for record in records]
    assert names == {f"{stem}{end}" for stem in stems for end in (".tar.gz.provenance.json", ".cdx.json")}
    words = ("--no-verify", "--repository", "fork/turbotool")
    assert asked == [("fetch", tmp_path / record["archive"], *words) for record in records]


@pytest.mark.parametrize(
    ("tag", "without", "said"),
    [
        ("v1.0.0", "", None),
        ("v1.0.1", "", "they must agree"),
        ("v1.0.0", "turbotool/data/vendor/lock.toml", "lacks turbotool/data/vendor/lock.toml"),
        ("v1.0.0", "turbotool/data/patches/b.patch", "lacks the patches b.patch"),
    ],
)
def test_wheel_is_of_the_tag_and_holds_series_and_lock(
    tmp_path: Path, tag: str, without: str, said: str | None
) -> None:
    file = tmp_path / "turbotool-1.0.0-py3-none-any.whl"
    texts = dict.fromkeys(wheel.NEEDED, "x") | {f"turbotool/data/patches/{one}.patch": "x" for one in "ab"}
    texts["turbotool/data/patches/series"] = "# order\na.patch\nb.patch\n"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in texts.items():
            if name != without:
                archive.writestr(name, text)
    if said is None:
        wheel.check(file, tag)
    else:
        with pytest.raises(SystemExit, match=said):
            wheel.check(file, tag)


def test_windows_variables_are_read_as_set_prints_them() -> None:
    assert package.variables("PATH=C:\\a;C:\\b=c\n=C:=C:\\\nbanner\n") == {"PATH": "C:\\a;C:\\b=c"}


def test_the_newest_tag_is_the_one_with_the_highest_number() -> None:
    listing = "1\trefs/tags/b999\n2\trefs/tags/b10000\n3\trefs/tags/b10000-rc1\n4\trefs/tags/master-1\n"
    assert rehearse.newest_tag(listing) == "b10000"
    with pytest.raises(SystemExit, match="no tag"):
        rehearse.newest_tag("1\trefs/tags/v1\n")


@pytest.mark.parametrize(
    ("found", "origin", "said"),
    [
        ({}, (True, True), "b7: fits"),
        ({"conflicts": [{}]}, (True, True), "b7: 1 in conflict"),
        (
            {"conflicts": [{}], "droppable": ["a"], "absent": ["b"]},
            (True, True),
            "1 in conflict, 1 to drop, 1 left out",
        ),
        ({}, (False, True), "b7: fits; the pin is NOT upstream's"),
        ({}, (False, False), "b7: fits; the pin was NOT CHECKED"),
    ],
)
def test_the_issues_title_says_whether_somebody_has_to_act(
    found: dict[str, object], origin: tuple[bool, bool], said: str
) -> None:
    document = {"conflicts": [], "droppable": [], "absent": [], **found}
    title = rehearse.title("b7", document, dict(zip(("ok", "checked"), origin, strict=True)))
    assert title.endswith(said)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("v1", "`v1` is commit `{commit}`: 7 files identical, 0 altered, 0 foreign, 0 lacking."),
        ("other", "- **not upstream's**: `src/core.cpp`"),
        ("gone", "`gone` was NOT CHECKED: "),
    ],
)
def test_the_weekly_report_holds_the_rehearsal_and_the_pin_beside_upstream(
    project: Project, monkeypatch: pytest.MonkeyPatch, there: str, said: str
) -> None:
    ensure_vendored(project.session)
    release(project, "other", {"src/core.cpp": "other\n"})
    release(project, "b12", {"src/cache.cpp": "other\n"})
    locked = read_lock(project.layout).upstream
    write_upstream(project.layout, replace(locked, source="pypi", commit="", url="", tag=there))
    for name, value in variables_of(project.layout).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(project.layout.root)
    rehearse.rehearse(str(project.upstream.folder))
    text = rehearse.REPORT.read_text()
    assert "| upstream | llama.cpp | clean |" in text
    assert "## The pin beside upstream itself" in text
    assert said.format(commit=project.upstream.text("rev-parse", "v1")) in text
    assert ("NOT" in json.loads(rehearse.RESULT.read_text())["title"]) is (there != "v1")


def test_a_release_is_packaged_only_after_the_pin_was_compared_with_upstream() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    job = text[text.index("\n  upstream:") : text.index("\n  package:")]
    assert "run: turbotool vendor check\n" in job
    assert "continue-on-error" not in job
    assert "needs: [matrix, upstream]" in text[text.index("\n  package:") : text.index("\n  publish:")]


def jobs_of_release() -> dict[str, str]:
    """The text of each job of the release workflow."""
    text = (ROOT / ".github/workflows/release.yml").read_text()
    parts = re.split(r"^  ([\w-]+):\n", text[text.index("\njobs:\n") :], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_nothing_is_published_before_it_was_built_again_attested_and_fetched() -> None:
    jobs = jobs_of_release()
    needs = {name: set(re.findall(r"[\w-]+", found[1])) for name, text in jobs.items() if (found := _needs(text))}
    assert needs["pypi"] == {"publish"}
    assert needs["publish"] == {"attest"}
    assert needs["attest"] == {"package", "again", "wheel"}
    assert needs["again"] == {"matrix", "package"}
    assert 'run: python ci/package.py "$TARGET" --again\n' in jobs["again"]
    assert not [name for name, text in jobs.items() if "continue-on-error" in text]


def _needs(text: str) -> re.Match[str] | None:
    return re.search(r"\n    needs: (.+)", text)


def test_what_signs_and_uploads_builds_nothing_and_what_builds_may_not_sign() -> None:
    jobs = jobs_of_release()
    assert {name for name, text in jobs.items() if "id-token: write" in text} == {"attest", "pypi"}
    assert not [name for name in ("attest", "pypi") if "checkout" in jobs[name] or re.search(r"\brun: ", jobs[name])]
    assert "secrets." not in "".join(jobs.values())


@pytest.mark.parametrize(("open_issues", "verb"), [([], "create"), ([{"number": 12}], "edit")])
def test_one_open_issue_holds_the_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_issues: list[object], verb: str
) -> None:
    asked: list[list[str]] = []

    def run(words: list[str | Path]) -> str:
        asked.append([str(word) for word in words])
        return json.dumps(open_issues) if "list" in words else ""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearse, "run", run)
    rehearse.REPORT.parent.mkdir()
    rehearse.REPORT.write_text("x" * 100_000)
    rehearse.RESULT.write_text('{"title": "t"}')
    rehearse.file()
    assert asked[-1][:3] == ["gh", "issue", verb]
    assert asked[-1][-4:] == ["--title", "t", "--body-file", str(rehearse.REPORT)]
    assert len(rehearse.REPORT.read_text()) < 65_536


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_what_it_uses_and_runs_only_turbotool_and_our_scripts(workflow: Path) -> None:
    text = workflow.read_text()
    assert "\npermissions: {}\n" in text
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) and " # v" in rest for name, rest in uses)
    ours = r"(?:turbotool |python3? ci/|bash \.ci/(?:run --fast|test)|python -m pip install -e (?:\.|'\.\[fetch\]')$).*"
    commands = re.findall(r"\brun: (.+)", text)
    assert commands
    assert all(re.fullmatch(ours, command) and "${{" not in command for command in commands)


SERIES = [f"{at:040x}" for at in range(24)]


def test_a_sample_of_patches_keeps_their_order_and_changes_from_commit_to_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = []
    for commit in "abcdef":
        monkeypatch.setattr(each_patch, "run", lambda words, commit=commit: f"{commit}\n")
        samples.append(each_patch.chosen(SERIES, 3))
    assert all(len(sample) == 3 and sample == sorted(sample) for sample in samples)
    assert len({tuple(sample) for sample in samples}) > 1
    assert each_patch.chosen(SERIES, 0) == SERIES


def test_a_patch_is_tried_with_the_tests_of_what_it_touches_each_once() -> None:
    assert [test[0] for test in each_patch.tests_for(["src/llama-graph.cpp", "src/llama-kv-cache.h"])] == [
        "test-llama-archs"
    ]
    both = [test[0] for test in each_patch.tests_for(["ggml/src/ggml.c", "tests/CMakeLists.txt"])]
    assert both == ["test-quantize-fns", "test-backend-ops", "test-llama-archs"]
    assert each_patch.tests_for(["gguf-py/gguf/constants.py"]) == []
