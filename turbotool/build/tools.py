"""The programs that a build needs, each as versioned candidates; one that does not run is a candidate without version.

The idea of versioned candidates is scikit-build-core's (`program_search.py`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.build import cuda
from turbotool.errors import ToolFailed, ToolMissing, TurbotoolError
from turbotool.system import process

PROBE_SECONDS = 10
LAUNCHERS = ("ccache", "sccache")
USUAL_CUDA = "/usr/local/cuda"


@dataclass(frozen=True)
class Candidate:
    """One place where a tool was looked for and found. `version` is None when the program there does not run."""

    path: str
    version: str | None
    banner: str
    origin: str


@dataclass(frozen=True)
class Tool:
    """A tool and every candidate for it, best first. `flags` are the words that CC or CXX has after the program."""

    name: str
    tried: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    flags: tuple[str, ...] = ()
    minimum: tuple[int, ...] = ()

    @property
    def chosen(self) -> Candidate | None:
        """The first candidate that runs and is new enough."""
        return next((candidate for candidate in self.candidates if self.serves(candidate)), None)

    def serves(self, candidate: Candidate) -> bool:
        return candidate.version is not None and version_tuple(candidate.version) >= self.minimum

    def require(self, install: str) -> Candidate:
        """The chosen candidate. Raises ToolMissing that lists what was tried; `install` is its hint."""
        if self.chosen is None:
            raise ToolMissing(f"no usable {self.name}: {self.describe_search()}", hint=install)
        return self.chosen

    def describe_search(self) -> str:
        """What was tried and why none of it serves."""
        found = [f"{c.path} ({self.defect(c)})" for c in self.candidates if not self.serves(c)]
        return f"tried {', '.join(self.tried)}; " + (f"found {', '.join(found)}" if found else "none is installed")

    def defect(self, candidate: Candidate) -> str:
        if candidate.version is None:
            return f"broken: {candidate.banner}"
        return f"version {candidate.version} is older than {'.'.join(map(str, self.minimum))}"


@dataclass(frozen=True)
class Tools:
    """Everything that was looked for, by name."""

    by_name: Mapping[str, Tool]

    def __getitem__(self, name: str) -> Tool:
        return self.by_name[name]

    def chosen(self, name: str) -> Candidate | None:
        return self.by_name[name].chosen if name in self.by_name else None

    @property
    def launcher(self) -> Candidate | None:
        """The compiler cache to put before the compiler, if one is installed."""
        return next((found for name in LAUNCHERS if (found := self.chosen(name))), None)


ALL = ("cmake", "ninja", "c", "c++", "git", "ccache", "sccache", "nvcc", "glslc", "xcrun")
C_NAMES = ("cc", "gcc", "clang", "cl")
CXX_NAMES = ("c++", "g++", "clang++", "cl")


def find_tools(env: Mapping[str, str], names: Iterable[str] = ALL, *, private: bool = True) -> Tools:
    """Look for `names` in `env`'s variables and PATH; `private`: cmake and ninja first beside this Python."""
    return Tools({name: _find(name, env, private) for name in names})


def _find(name: str, env: Mapping[str, str], private: bool) -> Tool:
    if name == "c":
        return _compiler("C compiler", "CC", C_NAMES, env)
    if name == "c++":
        return _compiler("C++ compiler", "CXX", CXX_NAMES, env)
    if name in ("cmake", "ninja"):
        minimum = (3, 18) if name == "cmake" else (1, 10)
        places = [*(_python_places(name) if private else ()), *_on_path([name], env)]
        return _tool(name, [name], places, minimum=minimum)
    if name == "nvcc":
        tried = ["CUDACXX", "PATH", "CUDA_PATH", "CUDA_HOME", USUAL_CUDA, cuda.ORIGIN]
        found = _tool(name, tried, _nvcc_places(env))
        return replace(found, candidates=tuple(map(_with_toolkit, found.candidates)))
    if name == "glslc":
        sdk = env.get("VULKAN_SDK")
        places = [(str(Path(sdk) / "bin" / executable(name)), "VULKAN_SDK")] if sdk else []
        return _tool(name, [name], [*places, *_on_path([name], env)])
    return _tool(name, [name], _on_path([name], env))


def executable(name: str) -> str:
    """The file name of a program on this system."""
    return f"{name}.exe" if sys.platform == "win32" else name


def _python_places(name: str) -> Iterator[tuple[str, str]]:
    """Where the PyPI packages put the program: the real binary first, its Python wrapper starts slower."""
    origin = "this Python environment"
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield str(Path(folder) / "data" / "bin" / executable(name)), origin
    yield str(Path(sys.executable).parent / executable(name)), origin


def _nvcc_places(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if env.get("CUDACXX"):
        yield env["CUDACXX"], "CUDACXX"
    yield from _on_path(["nvcc"], env)
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if env.get(variable):
            yield str(Path(env[variable]) / "bin" / executable("nvcc")), variable
    yield str(Path(USUAL_CUDA) / "bin" / executable("nvcc")), "usual place"
    for place in cuda.package_places():
        yield str(place), cuda.ORIGIN


def _with_toolkit(candidate: Candidate) -> Candidate:
    """An nvcc whose toolkit is not whole is a broken one."""
    defect = cuda.defect(Path(candidate.path), candidate.origin) if candidate.version else None
    return replace(candidate, version=None, banner=defect) if defect else candidate


def _on_path(names: Sequence[str], env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every program of these names on PATH: names in order, for each name the folders in order."""
    # On most systems /bin is /usr/bin: each folder once, under its first name.
    folders = {os.path.realpath(folder): folder for folder in reversed(env.get("PATH", "").split(os.pathsep)) if folder}
    for name in names:
        for folder in reversed(folders.values()):
            if found := shutil.which(name, path=folder):
                yield found, "PATH"


def _compiler(title: str, variable: str, names: Sequence[str], env: Mapping[str, str]) -> Tool:
    """A compiler. One that the user names in the environment is the only candidate: no silent substitute."""
    words = _words(env.get(variable, ""))
    while words and Path(words[0]).stem in LAUNCHERS:
        words.pop(0)
    if not words:
        return _tool(title, [variable, *names], _on_path(names, env))
    found = shutil.which(words[0], path=env.get("PATH", ""))
    tool = _tool(title, [f"{variable}={env[variable]}"], [(found or words[0], variable)], keep_missing=True)
    return Tool(tool.name, tool.tried, tool.candidates, tuple(words[1:]))


def _words(text: str) -> list[str]:
    """As a shell would split them; what no shell can split is one word, the name of a program that there is not."""
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _tool(
    name: str,
    tried: Sequence[str],
    places: Iterable[tuple[str, str]],
    *,
    minimum: tuple[int, ...] = (),
    keep_missing: bool = False,
) -> Tool:
    seen: dict[str, Candidate] = {}
    for path, origin in places:
        if path not in seen and (keep_missing or Path(path).is_file()):
            seen[path] = probe(path, origin)
    return Tool(name, tuple(tried), tuple(seen.values()), minimum=minimum)


def probe(path: str, origin: str) -> Candidate:
    """Ask a program for its version. One that does not start, fails or names no version is broken."""
    words = [path] if Path(path).stem.lower() == "cl" else [path, "--version"]
    try:
        done = process.run(
            words, cwd=Path(path).parent if Path(path).is_absolute() else Path.cwd(), check=False, timeout=PROBE_SECONDS
        )
    except ToolFailed:
        return Candidate(path, None, f"no answer within {PROBE_SECONDS} s", origin)
    except (OSError, TurbotoolError) as error:
        return Candidate(path, None, str(error), origin)
    if done.returncode != 0:
        return Candidate(path, None, f"--version ended with {process.describe_exit(done.returncode)}", origin)
    return Candidate(path, *_identity(done.output), origin)


def _identity(output: str) -> tuple[str | None, str]:
    """(version, banner): the line that names the version, on which a cache key can rely, and the number in it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    pattern = re.compile(r"(?<![\w.])[vV]?(\d+(?:\.\d+)+)")
    # nvcc prints its version in a late line, which begins otherwise than its copyright lines.
    ordered = sorted(lines, key=lambda line: not line.startswith("Cuda compilation tools"))
    for line in ordered:
        if found := pattern.search(re.sub(r"\([^)]*\)", "", line)) or pattern.search(line):
            return found.group(1), line
    return None, "it prints no version"


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
