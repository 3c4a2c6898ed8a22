"""What programs rely on: JSON documents and exit codes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_series import Project, commit, write

from turbotool.cli import main


def turbotool(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object], str]:
    with pytest.raises(SystemExit) as ended:
        main.run([*words, "--json"])
    captured = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), json.loads(captured.out), captured.err


@pytest.fixture
def here(patched: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("TURBOTOOL_ROOT", str(patched.layout.root))
    monkeypatch.setenv("TURBOTOOL_CACHE", str(patched.layout.cache))
    return patched


def test_vendor_says_commit_source_and_path(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = turbotool(here, capsys, "vendor")
    assert (code, document["source"], document["path"]) == (0, "git", str(here.layout.tree))
    assert document["commit"] == here.upstream.text("rev-parse", "HEAD")


def test_a_dirty_tree_ends_with_its_own_code_and_the_next_command(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here.layout.tree, "mine.txt", "mine")
    code, document, said = turbotool(here, capsys, "vendor")
    error = document["error"]
    assert isinstance(error, dict)
    assert (code, error["class"]) == (14, "DirtyTree")
    assert "mine.txt" in said
    assert "--force" in error["hint"]


def test_list_and_check_name_each_patch(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, said = turbotool(here, capsys, "patch", "list")
    assert (code, document["overlay"]) == (0, ["src/turbo/codec.c"])
    assert "Register the turbo cache types" in said
    code, document, _ = turbotool(here, capsys, "patch", "check")
    patches = document["patches"]
    assert isinstance(patches, list)
    assert (code, document["ok"], {patch["state"] for patch in patches}) == (0, True, {"clean"})
    path = here.layout.patches / patches[0]["name"]
    path.write_bytes(path.read_bytes().replace(b" line 10\n", b" line ten\n"))
    code, document, _ = turbotool(here, capsys, "patch", "check")
    assert (code, document["ok"]) == (16, False)


def test_export_and_apply_are_inverse_on_the_command_line(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = here.snapshot()
    shutil.rmtree(here.layout.tree)
    assert turbotool(here, capsys, "patch", "apply")[0] == 0
    code, document, _ = turbotool(here, capsys, "patch", "export")
    assert (code, document["changed"], here.snapshot() == before) == (0, False, True)


def test_the_commands_of_a_conflict_report_work_as_typed(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    path = here.layout.patches / "register-the-turbo-cache-types.patch"
    path.write_bytes(path.read_bytes().replace(b" line 10\n", b" line ten\n"))
    code, document, _ = turbotool(here, capsys, "patch", "apply", "--relock")
    assert code == 16
    error = document["error"]
    assert isinstance(error, dict)
    folder = Path(error["report"]["work_tree"])
    core = folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 10\n", "line 10\nrepaired\n"))
    for line in error["report"]["commands"]["continue"]:
        words = shlex.split(line)
        if words[0] == "turbotool":
            words[:1] = [sys.executable, "-m", "turbotool"]
        if words[0] != "cd":
            subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert "repaired" in (here.layout.tree / "src/core.cpp").read_text()
    assert turbotool(here, capsys, "patch", "apply")[1]["cached"] is True


def test_rehearse_ends_with_the_code_of_a_conflict_and_names_what_clashes(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    core = here.upstream.folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 30\n", "line thirty\n"))
    commit(here.upstream, "next")
    code, document, said = turbotool(here, capsys, "patch", "rehearse", "--onto", "main")
    assert (code, document["ok"]) == (16, False)
    assert [patch["state"] for patch in document["patches"]] == ["clean", "conflict"]  # type: ignore[attr-defined]
    assert document["conflicts"][0]["files"][0]["hunks"][0]["conflict"] is True  # type: ignore[index]
    assert "turbotool vendor bump main" in said
    code, document, _ = turbotool(here, capsys, "patch", "rehearse", "--onto", f"{here.upstream.folder}@v1")
    assert (code, document["ok"], document["droppable"], document["conflicts"]) == (0, True, [], [])
    page = here.layout.root / "docs" / "table.md"
    v1 = f"{here.upstream.folder}@v1"
    code, document, _ = turbotool(
        here, capsys, "patch", "rehearse", "--onto", v1, "--onto", "main", "--report", str(page)
    )
    assert (code, document["ok"], [one["ok"] for one in document["rehearsals"]]) == (16, False, [True, False])  # type: ignore[attr-defined]
    assert "--onto main --report" in page.read_text()


def test_a_bump_is_stopped_repaired_and_continued_as_typed(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    core = here.upstream.folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 10\n", "line ten\n"))
    commit(here.upstream, "next")
    code, document, said = turbotool(here, capsys, "vendor", "bump", "main", "--no-verify")
    assert code == 16
    assert "lock, patches and vendored tree are as before" in said
    error = document["error"]
    assert isinstance(error, dict)
    assert turbotool(here, capsys, "patch", "continue", "--no-verify")[0] == 14  # the markers are still there
    place = Path(error["report"]["work_tree"])
    (place / "src/core.cpp").write_text(core.read_text().replace("line ten\n", "line ten\nturbo 10\n"))
    code, document, said = turbotool(here, capsys, "patch", "continue", "--no-verify")
    assert (code, document["ok"], document["proven"], document["moved"]) == (0, True, False, True)
    assert "NOT built, NOT verified" in said
    assert turbotool(here, capsys, "patch", "abort")[0] == 15
    code, document, said = turbotool(here, capsys, "vendor", "bump", "main")
    assert (code, document["moved"]) == (0, False)


def test_options_before_a_subcommand_of_vendor_are_refused(here: Project) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(["vendor", "--force", "bump", "main"])
    assert ended.value.code == 2
