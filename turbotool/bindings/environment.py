"""A virtual environment: made or looked at, and llama-cpp-python in it, installed without libraries of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.bindings.releases import NAME, BindingsRelease
from turbotool.errors import SourceError, ToolFailed, ToolMissing, UsageMistake
from turbotool.system import process
from turbotool.system.process import display
from turbotool.system.session import Session
from turbotool.upstream.pypi import fetch_pypi

WITHOUT_LIBRARIES = "-DLLAMA_BUILD=OFF"  # what CMake is told
MARK = "pyvenv.cfg"  # what a virtual environment has
PACKAGES_BIN = "Scripts" if os.name == "nt" else "bin"
ASK = f"""
import importlib.metadata, json, platform, sysconfig
try:
    version = importlib.metadata.version({NAME!r})
except importlib.metadata.PackageNotFoundError:
    version = ""
print(json.dumps([sysconfig.get_path("platlib"), platform.python_version(), version]))
"""
REPORT = "import json, turbotool_llama; print(json.dumps(turbotool_llama.report()))"
# what a person has set for other uses of Python, or of the library, must not decide what the environment is
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "LLAMA_CPP_LIB_PATH", "LLAMA_ARG_KV_CALIBRATION")


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its folder, where its packages are, and the bindings in it, '' if there are none."""

    folder: Path
    packages: Path
    python_version: str
    bindings: str

    @property
    def python(self) -> Path:
        return python_in(self.folder)


def python_in(folder: Path) -> Path:
    return folder / PACKAGES_BIN / ("python.exe" if os.name == "nt" else "python")


def log_file(session: Session) -> Path:
    return session.layout.logs / "python-env.log"


def variables(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would lead Python or the bindings elsewhere."""
    return {name: text for name, text in os.environ.items() if name not in FOREIGN} | dict(extra or {})


def require_place(folder: Path) -> None:
    """Raise UsageMistake unless the folder is a virtual environment, or can become one without touching a file."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageMistake(
            f"{folder} is not empty, and no virtual environment", hint="turbotool python-env, and a new folder"
        )


def make(session: Session, folder: Path) -> bool:
    """Make the environment unless it is there; whether it was made. Raises ToolMissing without Python's venv."""
    if (folder / MARK).is_file() and python_in(folder).exists():
        return False
    session.out.say(f"making a virtual environment: {folder}")
    words: list[str | Path] = [sys.executable, "-m", "venv", folder]
    done = process.run(words, cwd=folder.parent, env=variables(), log=log_file(session), check=False)
    if done.returncode != 0:
        hint = f"{display(words)}, which says what is missing; on Debian and Ubuntu: sudo apt-get install python3-venv"
        raise ToolMissing(f"Python cannot make a virtual environment in {folder}:\n{done.tail}", hint=hint)
    return True


def look(folder: Path) -> Environment:
    """What is in an environment. Raises ToolFailed if its Python does not run."""
    packages, version, bindings = _asked(folder, ASK)
    return Environment(folder, Path(packages), version, bindings)


def install(session: Session, found: Environment, release: BindingsRelease) -> None:
    """Install the locked release, without its own copy of llama.cpp: nothing is compiled.

    Raises what `fetch_pypi` raises, and SourceError with pip's own words.
    """
    downloads = session.layout.cache / "downloads"
    archive = fetch_pypi(
        NAME, release.version, release.archive, release.sha256, release.size, downloads, out=session.out
    )
    session.out.say(f"installing {NAME} {release.version}, without libraries of its own")
    _pip_install(session, found, str(archive), f"{NAME} {release.version}")


def install_wheel(session: Session, found: Environment, wheel: Path, extra: str) -> None:
    """Install a wheel with one of its extras. Raises SourceError with pip's own words."""
    _pip_install(session, found, f"{wheel}[{extra}]", wheel.name)


def _pip_install(session: Session, found: Environment, what: str, name: str) -> None:
    command: list[str | Path] = [found.python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    env, log = variables({"CMAKE_ARGS": WITHOUT_LIBRARIES}), log_file(session)
    done = process.run([*command, what], cwd=found.folder, env=env, log=log, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.output.splitlines()[-8:])
        raise SourceError(f"pip cannot install {name}; full log in {log}\n{tail}", hint=f"read {log}")


def report(found: Environment) -> dict[str, Any]:
    """What the bindings say once they have loaded the libraries. Raises ToolFailed with what keeps them from it."""
    told: dict[str, Any] = _asked(found.folder, REPORT)
    return told


def _asked(folder: Path, code: str) -> Any:
    """The JSON that a line of Python prints last, in the environment."""
    done = process.run([python_in(folder), "-I", "-c", code], cwd=folder, env=variables(), check=False)
    lines = done.output.splitlines()
    if done.returncode != 0 or not lines:
        raise ToolFailed(lines[-1] if lines else f"{python_in(folder)} prints nothing", hint=_anew(folder))
    return json.loads(lines[-1])


def _anew(folder: Path) -> str:
    return f"{display(['turbotool', 'python-env', folder])}, with another folder or after {folder} was removed"
