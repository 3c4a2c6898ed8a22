"""A tiny upstream with everything that the real one has: ignored files, an executable, CRLF, a deep folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from turbotool.layout import Layout
from turbotool.series.export import export
from turbotool.system import git
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import SeriesLock, read_lock

QUIET = Output(quiet=True)
EMPTY = hashlib.sha256().hexdigest()
LINES = "".join(f"line {number}\n" for number in range(1, 41))
FILES = {
    "CMakeLists.txt": "project(tiny)\n",
    "src/core.cpp": LINES,
    "src/cache.cpp": LINES.replace("line", "cache"),
    "src/dos.h": "one\r\ntwo\r\nthree\r\n",
    ".gitignore": "*.log\n/build/\n",
    "kept.log": "upstream ships a file that its own .gitignore names\n",
    "run.sh": "#!/bin/sh\n",
}
# the two patches of the fixture `patched`
REGISTER, ROTATE = "register-the-turbo-cache-types.patch", "rotate-what-is-stored-in-k-and-v.patch"
TRAILERS = "\n\nReason: feature\nUpstream: none\nDrop-when: never\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    if name.endswith(".sh"):
        path.chmod(0o755)
    return path


def make_upstream(folder: Path, files: dict[str, str] = FILES) -> git.Git:
    """A git repository with one commit of `files` on branch `main` and tag `v1`."""
    if os.name == "nt":
        pytest.skip("the tiny upstream has an executable file, and names that Windows does not know")
    repository = git.init(folder)
    for name, text in files.items():
        write(folder, name, text)
    repository.run("checkout", "-q", "-b", "main")
    commit(repository, "release")
    repository.run("tag", "v1")
    return repository


def commit(repository: git.Git, message: str) -> str:
    repository.run("add", "--force", "--all")
    repository.run("commit", "--quiet", "--allow-empty", "--message", message)
    return repository.text("rev-parse", "HEAD")


@dataclass(frozen=True)
class Project:
    layout: Layout
    upstream: git.Git

    @property
    def session(self) -> Session:
        """A command at work here that says nothing."""
        return Session(self.layout, QUIET)

    @property
    def tree(self) -> git.Git:
        return git.Git(self.layout.tree)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.layout.tree / name
        data = path.read_bytes()
        assert old.encode() in data
        path.write_bytes(data.replace(old.encode(), new.encode()))

    def commit(self, subject: str) -> str:
        return commit(self.tree, subject + TRAILERS)

    def snapshot(self) -> dict[str, bytes]:
        """Every file that export may write."""
        files = [path for path in self.layout.patches.rglob("*") if path.is_file()] + [self.layout.lock_file]
        return {
            f"{path.relative_to(self.layout.root)} {path.stat().st_mode & 0o111:o}": path.read_bytes() for path in files
        }


def make_project(folder: Path, files: dict[str, str] = FILES) -> Project:
    """A checkout of turbotool's data files whose lock points at a tiny upstream repository with these files."""
    upstream = make_upstream(folder / "upstream repository", files)
    layout = Layout(folder / "root", folder / "root", folder / "cache")
    write(layout.root, "patches/series", "# order\n\n# about the patches\n")
    write(layout.root, "patches/README.md", "why\n")
    layout.overlay.mkdir()
    tree, head = upstream.tree_of("HEAD"), upstream.text("rev-parse", "HEAD")
    text = '# comment\nschema = "turbotool.lock"\nversion = 1\n\n'
    text += f'[upstream]\nsource = "git"\nurl = "{upstream.folder}"\ncommit = "{head}"\ntree = "{tree}"\n'
    text += f'\n[series]\n# kept\ntree = "{tree}"\noverlay = "{EMPTY}"\npatches = []\n'
    write(layout.root, "vendor/lock.toml", text)
    assert read_lock(layout).series == SeriesLock(tree, EMPTY, ())
    return Project(layout, upstream)


def copy_project(template: Path, folder: Path) -> Project:
    """A copy whose lock points at its own copy of upstream."""
    shutil.copytree(template, folder, symlinks=True)
    layout = Layout(folder / "root", folder / "root", folder / "cache")
    text = layout.lock_file.read_text(encoding="utf-8")
    layout.lock_file.write_text(text.replace(str(template), str(folder)), encoding="utf-8")
    return Project(layout, git.Git(folder / "upstream repository"))


def release(project: Project, tag: str, files: dict[str, str]) -> str:
    """A tag of the tiny upstream with these files changed; returns ADDRESS@REF."""
    for name, text in files.items():
        write(project.upstream.folder, name, text)
    commit(project.upstream, tag)
    project.upstream.run("tag", tag)
    return f"{project.upstream.folder}@{tag}"


def one_model(project: Project) -> str:
    """Commit and export a patch about `src/dos.h`, an overlay file beside it, and a patch after it; its name."""
    write(project.layout.tree, "src/dos/turbo.c", "int dos;\n")
    project.edit("src/dos.h", "three\r\n", "THREE\r\n")
    commit(project.tree, f"Count to three{TRAILERS}Needs: src/dos.h\nNeeds: src\n")
    project.edit("src/cache.cpp", "cache 5\n", "turbo 5\n")
    project.commit("Come last")
    export(project.session)
    return "count-to-three.patch"


def without_dos(project: Project, tag: str) -> str:
    """A tag of the tiny upstream without what `one_model` is about; returns ADDRESS@REF."""
    (project.upstream.folder / "src/dos.h").unlink()
    return release(project, tag, {})
