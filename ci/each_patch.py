"""Build and test llama.cpp with each patch as the last one applied: `python ci/each_patch.py`.

Whoever bisects, or takes half of the series, needs every state in between to work. A patch is tried with upstream's own
tests of what it touches, for the CPU. `--sample N` takes N patches, others with each commit of this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tool import run, turbotool

TREE = Path("vendor", "llama.cpp")
PLACE = Path("build", "each-patch")
RESULT = PLACE / "result.json"
BASE = "refs/turbotool/base"
OVERLAY = 1  # commits before the first patch
OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_NUMBER=0", "-DLLAMA_BUILD_COMMIT=test")
OFF = ("GGML_CCACHE", "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_BUILD_MTMD")


@dataclass(frozen=True)
class Topic:
    """Files of upstream whose path begins with `path`, and the programs of upstream that test them."""

    path: str
    tests: tuple[tuple[str, ...], ...]


TOPICS = (
    Topic("ggml/", (("test-quantize-fns",), ("test-backend-ops", "test", "-b", "CPU", "-o", "CPY,GET_ROWS,SET_ROWS"))),
    Topic("src/", (("test-llama-archs",),)),
    Topic("common/", (("test-log",),)),
    Topic("tests/", (("test-quantize-fns",), ("test-llama-archs",))),
)
BUILT = ("llama-completion", "llama-bench")  # whatever a patch touches


@dataclass(frozen=True)
class Tried:
    """One patch: its subject, the tests that passed with it as the last one, and the wall time in seconds."""

    subject: str
    tests: tuple[str, ...]
    seconds: float


def git(*words: str) -> list[str]:
    return run(["git", "-C", TREE, *words]).splitlines()


def commits() -> list[str]:
    """The commits of the patches, in order."""
    return git("rev-list", "--reverse", f"{BASE}..HEAD")[OVERLAY:]


def chosen(series: Sequence[str], sample: int) -> list[str]:
    """`sample` of the commits in their order, others for another commit of this repository; all of them for 0."""
    if not sample:
        return list(series)
    here = run(["git", "rev-parse", "HEAD"]).strip()
    rank = {commit: hashlib.sha256(f"{here} {at}".encode()).hexdigest() for at, commit in enumerate(series)}
    picked = sorted(series, key=lambda commit: rank[commit])[:sample]
    return [commit for commit in series if commit in picked]


def tests_for(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """The tests of the topics of these files, each once."""
    found = [test for topic in TOPICS for test in topic.tests if any(path.startswith(topic.path) for path in paths)]
    return list(dict.fromkeys(found))


def attempt(commit: str) -> Tried:
    """Build and test one state. Raises SystemExit if anything fails; its output is in the log."""
    started = time.monotonic()
    subject = git("show", "--no-patch", "--format=%s", commit)[0]
    print(f"== {subject}", file=sys.stderr, flush=True)
    tree, build = (PLACE / "tree").absolute(), (PLACE / "build").absolute()
    git("worktree", "prune")
    if not tree.exists():
        git("worktree", "add", "--detach", "--force", str(tree), commit)
    run(["git", "-C", tree, "checkout", "--quiet", "--force", "--detach", commit])
    tests = tests_for(git("diff-tree", "-r", "--no-commit-id", "--name-only", commit))
    off = [f"-D{name}=OFF" for name in OFF]
    run(["cmake", "-S", tree, "-B", build, "-G", "Ninja", *OPTIONS, *off, *launchers()])
    run(["ninja", "-C", build, *BUILT, *dict.fromkeys(test[0] for test in tests)])
    for program, *words in tests:
        run([build / "bin" / program, *words])
    return Tried(subject, tuple(" ".join(test) for test in tests), round(time.monotonic() - started, 1))


def launchers() -> list[str]:
    """ccache in front of the compilers if it is there: most files are the same in every state."""
    from shutil import which

    return [f"-DCMAKE_{name}_COMPILER_LAUNCHER=ccache" for name in ("C", "CXX") if which("ccache")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N of the patches")
    parser.add_argument("--only", default="", metavar="WORDS", help="only patches whose subject contains WORDS")
    given = parser.parse_args(arguments)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    turbotool("patch", "apply")
    series = [commit for commit in commits() if given.only in git("show", "--no-patch", "--format=%s", commit)[0]]
    if not series:
        raise SystemExit("there is no such patch")
    PLACE.mkdir(parents=True, exist_ok=True)
    tried = [attempt(commit) for commit in chosen(series, given.sample)]
    RESULT.write_text(json.dumps([asdict(one) for one in tried], indent=1) + "\n", encoding="utf-8")
    for one in tried:
        print(
            f"{one.seconds:7.1f} s  {one.subject}: {', '.join(one.tests) or 'built, no test of upstream is about it'}"
        )


if __name__ == "__main__":
    main()
