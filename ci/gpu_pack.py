"""The pack of a proof: what a Linux machine with a GPU needs to build and prove the patched llama.cpp offline.

It holds the patched sources without what a build for CUDA and the CPU does not read, the scripts of the proof,
turbotool with wheels of what it needs, and the default model.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

import turbotool
from turbotool.build.backends import BACKENDS
from turbotool.build.options import cmake_options
from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.build.tools import Tools
from turbotool.inputs.corpus import documentation
from turbotool.inputs.default_model import default_model
from turbotool.kv.cachetype import TURBO
from turbotool.layout import Layout
from turbotool.programs.binaries import Binaries
from turbotool.series.files import series_hash
from turbotool.system.digest import sha256_file
from turbotool.system.git import Git
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock
from turbotool.verify.checks import shapes, upstream
from turbotool.verify.registry import CHECKS

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
LIMIT_MIB = 48  # of everything apart from the model
SCRIPTS = ("gpu_proof.py", "gpu_stage.py", "gpu_figures.py", "gpu_toolkit.py")
PROVEN = ("cuda", "cpu")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# The machine has CMake and no git, and wheels are unpacked without pip. gguf comes by itself, see `download`.
NOT_NEEDED = ("cmake", "gguf", "gitpython", "pip")
FOR_GGUF = ("gguf", "pyyaml", "tqdm")  # and numpy
GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5")

# Documentation stays all the same, for it is the default text of `verify`.
LEFT_OUT = (
    *(f"{folder}/*" for folder in ("app", "benches", "ci", "conversion", "docs", "examples", "gguf-py", "media")),
    *(f"{folder}/*" for folder in ("models", "pocs", "requirements", "skills")),
    ".*",
    *("tools/ui/*/*", "tools/ui/*.json", "tools/ui/*.ts", "tools/server/tests/*", "tools/server/bench/*"),
    *(f"*.{kind}" for kind in ("py", "sh", "png", "jpg", "jpeg", "gif", "webp", "mp3", "mp4", "wav", "gguf", "ipynb")),
)
KEPT_BACKENDS = ("cpu", "cuda")
OPTIONS = {
    "CMAKE_INSTALL_RPATH": "$ORIGIN",  # wherever the pack is made
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "GGML_CCACHE": "ON",  # if there is one
}
CUDA_OPTIONS = {"GGML_CUDA_NCCL": "OFF"}  # for several GPUs

COMMAND = """\
#!/bin/sh
# Builds for the GPU of this machine, proves and measures: one JSON document, gpu-proof.json beside this file.
# It needs nvcc, CMake, a C++ compiler and Python 3.10 or newer, and no network.
cd "$(dirname "$0")" && exec python3 gpu_proof.py run "$@"
"""

Fetch = Callable[[Path, str, bool], list[str]]


@dataclass(frozen=True)
class Ingredients:
    """What a pack is made of: a checkout, the patched tree, the model, the Pythons it is for, and numpy or not."""

    layout: Layout
    tree: Path
    model: Path
    pythons: Sequence[str] = PYTHONS
    numpy: bool = False


def make_pack(out: Path, given: Ingredients, *, limit_mib: int = LIMIT_MIB, fetch: Fetch | None = None) -> int:
    """Fill the new folder `out`; returns the bytes of everything apart from the model.

    `fetch` downloads the wheels for one Python. Raises SystemExit if the folder exists, the tree is not the locked one,
    or the pack is too large. What is not whole is removed.
    """
    if out.exists():
        raise SystemExit(f"{out} exists: name a new folder")
    tree = patched_tree(given)
    out.mkdir(parents=True)
    try:
        return fill(out, given, tree, limit_mib, fetch or download)
    except BaseException:
        shutil.rmtree(out)
        raise


def fill(out: Path, given: Ingredients, tree: str, limit_mib: int, fetch: Fetch) -> int:
    """As `make_pack`, for an empty folder and a tree of that id."""
    names = write_sources(given.tree, out / "llama.cpp.zip")
    copy_turbotool(given.layout, out)
    wheels = {version: fetch(out / "wheels", version, given.numpy) for version in given.pythons}
    model = Path("cache", "models", sha256_file(given.model), given.model.name)
    facts = {
        "schema": "turbotool.gpu-pack",
        "version": 1,
        "turbotool": {"version": turbotool.__version__, "commit": commit_of(given.layout.root)},
        "upstream": upstream_of(given.layout),
        "series_tree": tree,
        "source_files": len(names),
        "wheels": wheels,
        "model": {"path": model.as_posix(), "bytes": given.model.stat().st_size},
        **build_facts(given.layout, given.tree, tree),
        **check_facts(),
    }
    (out / "pack.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (out / "run.sh").write_text(COMMAND, encoding="utf-8", newline="\n")
    (out / "run.sh").chmod(0o755)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > limit_mib * MIB:
        raise SystemExit(f"{out} has {size / MIB:.1f} MiB without the model, more than {limit_mib}: {largest(out)}")
    (out / model).parent.mkdir(parents=True)
    shutil.copyfile(given.model, out / model)
    return size


def largest(folder: Path) -> str:
    """The three largest files, with their MiB."""
    sizes = sorted(((path.stat().st_size, path) for path in folder.rglob("*") if path.is_file()), reverse=True)
    return ", ".join(f"{path.relative_to(folder)} {size / MIB:.1f}" for size, path in sizes[:3])


def patched_tree(given: Ingredients) -> str:
    """Git's id of the tree that is packed: the locked series, without edits. Raises SystemExit otherwise."""
    git = Git(given.tree)
    locked = read_lock(given.layout).series.tree
    found = git.tree_of("HEAD") if (given.tree / ".git").exists() else "no git work tree"
    if found != locked:
        raise SystemExit(f"{given.tree} is {found}, locked is {locked}: turbotool patch apply")
    if edits := git.status():
        raise SystemExit(f"{given.tree} holds edits: {', '.join(edits[:5])}")
    return locked


def is_kept(name: str, texts: Iterable[str]) -> bool:
    """Whether a file of the tree is packed; `texts` are the names of its documentation."""
    backend = re.match(r"ggml/src/ggml-([a-z0-9]+)/", name)
    if backend and backend[1] not in KEPT_BACKENDS:
        return False
    if name.startswith("scripts/"):
        return name.endswith(".cmake")
    return name in texts or not any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT)


def write_sources(tree: Path, archive: Path) -> list[str]:
    """Write what a build reads of the tree's committed files to a zip archive; returns their names."""
    texts = {path.relative_to(tree).as_posix() for path in documentation(tree)}
    names = [name for name in Git(tree).files("HEAD") if is_kept(name, texts)]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in names:
            packed.writestr(
                zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), (tree / name).read_bytes(), zipfile.ZIP_DEFLATED
            )
    return names


def copy_turbotool(layout: Layout, out: Path) -> None:
    """turbotool as in a checkout, as far as it proves: the package, the lock, the names of the series, the scripts."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(Path(turbotool.__file__).parent, out / "turbotool", ignore=ignored)
    for file in (layout.series, layout.lock_file, layout.root / "LICENSE", layout.root / "NOTICE"):
        target = out / file.relative_to(layout.root)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    for script in SCRIPTS:
        shutil.copyfile(Path(__file__).with_name(script), out / script)


def requirements() -> list[str]:
    """What turbotool needs to run `verify` and `bench` on a machine with CMake and without git."""
    project: dict[str, Any] = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()["project"]
    needed: list[str] = project["dependencies"]
    return [word for word in needed if re.split(r"[^\w.-]", word)[0].lower() not in NOT_NEEDED]


def download(wheels: Path, python: str, numpy: bool) -> list[str]:
    """Add the wheels for one version of CPython on Linux to the folder; returns their names.

    gguf, which only writes models with random weights, comes without numpy, of which every version of Python has
    another wheel of 16 MB and more.
    """
    wheels.mkdir(exist_ok=True)
    platforms = [word for name in GLIBC for word in ("--platform", f"{name}_x86_64")]
    base = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:", "--implementation", "cp"]
    base += ["--python-version", python, *platforms]
    groups = (requirements(), ["--no-deps", *FOR_GGUF, *(["numpy"] if numpy else [])])
    with tempfile.TemporaryDirectory() as folder:
        for group in groups:
            subprocess.run([*base, "--dest", folder, *group], check=True)
        found = sorted(Path(folder).glob("*.whl"))
        for wheel in found:
            shutil.copyfile(wheel, wheels / wheel.name)
        return [wheel.name for wheel in found]


def commit_of(root: Path) -> str:
    """The commit of this repository; '' if it is none."""
    return Git(root).resolve("HEAD") or "" if (root / ".git").exists() else ""


def upstream_of(layout: Layout) -> dict[str, Any]:
    """What the lock says of upstream, whatever fields it has."""
    table: dict[str, Any] = tomlkit.parse(layout.lock_file.read_text(encoding="utf-8")).unwrap()["upstream"]
    return table


def build_facts(layout: Layout, folder: Path, tree: str) -> dict[str, Any]:
    """The programs of `verify`, and turbotool's own CMake options for each backend, apart from the machine's tools."""
    locked = read_lock(layout).upstream
    source = PatchedSource(folder, tree, locked, series_hash(layout))
    backends = {}
    for name in PROVEN:
        own = cmake_options(BuildRequest(BACKENDS[name]), source, Tools({}))
        more = OPTIONS | (CUDA_OPTIONS if name == "cuda" else {})
        backends[name] = {"options": own | more, "device": upstream.BACKENDS[name]}
    return {"targets": list(Binaries(Path()).programs), "backends": backends}


def check_facts() -> dict[str, Any]:
    """What test-backend-ops is asked, and the checks of `verify`; some write models with numpy."""
    return {
        "operations": {"names": list(upstream.FULL_OPS), "pattern": upstream.CASES, "types": list(TURBO)},
        "checks": [spec.name for spec in CHECKS],
        "numpy_checks": [spec.name for spec in CHECKS if spec.run.__module__ == shapes.__name__],
    }


def main(out: Path, layout: Layout, tree: Path | None, pythons: Sequence[str], numpy: bool) -> None:
    """Make a pack and print the one command that uses it."""
    model = default_model(Session(layout, Output()))
    size = make_pack(out, Ingredients(layout, tree or layout.tree, model, pythons, numpy))
    print(f"{out}: {size / MIB:.1f} MiB and the model, {model.stat().st_size / MIB:.1f} MiB", file=sys.stderr)
    print(f"sh {out.name}/run.sh --out gpu-proof.json")
