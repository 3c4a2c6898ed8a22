"""What this machine has and lacks for each backend, and the command that installs it. Needs nothing but Python."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from importlib import metadata
from pathlib import Path

from turbotool import __version__
from turbotool.build import record
from turbotool.build.backends import BACKENDS, Backend
from turbotool.build.host import Choices, Host
from turbotool.build.installers import installer
from turbotool.build.toolchain import toolchain
from turbotool.build.tools import Tools
from turbotool.errors import ToolMissing, TurbotoolError, first_line
from turbotool.layout import Layout
from turbotool.programs.devices import Devices, find_devices
from turbotool.system.git import Git
from turbotool.system.machine import memory_free

OLD = 60  # days after which a pin that nobody moved is worth a warning
UNLOCKED = {"GIT_OPTIONAL_LOCKS": "0"}  # whoever only looks does not stand in the way of a git that works there
REHEARSE = "turbotool patch rehearse --onto master"


@dataclass(frozen=True)
class BackendReport:
    """Whether a backend can be built here; if not, `reason` and `remedy` (a command)."""

    name: str
    ok: bool
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """Everything that doctor found. Sizes in bytes; None where the system does not say."""

    tools: Tools
    backends: tuple[BackendReport, ...]
    devices: tuple[Devices, ...]
    python: Mapping[str, object]
    packages: Mapping[str, str | None]
    disk_free: int
    memory_free: int | None
    work: Path
    pin: Mapping[str, object]
    tree: Mapping[str, object]
    builds: tuple[Mapping[str, object], ...]

    @property
    def ok(self) -> bool:
        """True when the cpu backend can be built."""
        return self.error() is None

    def error(self) -> ToolMissing | None:
        """What the command ends with; None if the cpu backend can be built."""
        cpu = next(backend for backend in self.backends if backend.name == "cpu")
        if cpu.ok:
            return None
        return ToolMissing(f"the cpu backend cannot be built here: {first_line(cpu.reason)}", hint=cpu.remedy or None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth a look although everything works, each with the next command to type."""
        age = self.pin.get("age_days")
        if not isinstance(age, int) or age <= OLD:
            return ()
        return (f"the pinned llama.cpp is {age} days old, more than {OLD}; does the series fit today's? {REHEARSE}",)


def examine(layout: Layout, tools: Tools, host: Host, today: date | None = None) -> DoctorReport:
    """Look at everything; a part that cannot be read is reported, never raised. `today` is the day in UTC."""
    pin = _pin(layout, today or datetime.now(timezone.utc).date())
    return DoctorReport(
        tools=tools,
        backends=tuple(_backend(backend, tools, host) for backend in BACKENDS.values()),
        devices=find_devices(layout, host),
        python=_python(),
        packages=_packages(),
        disk_free=shutil.disk_usage(next(f for f in (layout.work, *layout.work.parents) if f.exists())).free,
        memory_free=memory_free(),
        work=layout.work,
        pin=pin,
        tree=_tree(layout, pin.get("tree")),
        builds=tuple(_build(layout, name) for name in BACKENDS if layout.build(name).is_dir()),
    )


def _backend(backend: Backend, tools: Tools, host: Host) -> BackendReport:
    try:
        toolchain(tools, host.env)
        tools["git"].require(installer(host.env).hint("git"))
        backend.preflight(tools, host, Choices())
    except TurbotoolError as error:
        return BackendReport(backend.name, False, error.message, error.hint or "")
    return BackendReport(backend.name, True)


def _python() -> dict[str, object]:
    return {
        "version": platform.python_version(),
        "executable": sys.executable,
        "venv": sys.prefix != sys.base_prefix,
        "turbotool": __version__,
        "system": platform.platform(),
    }


def _packages() -> dict[str, str | None]:
    """Our dependencies (not the extras') and their installed versions; None for one that is missing."""
    try:
        requirements = metadata.requires("turbotool") or []
    except metadata.PackageNotFoundError:
        return {}
    names = [
        re.split(r"[\s<>=!~;\[(]", requirement)[0] for requirement in requirements if "extra ==" not in requirement
    ]
    return {name: _installed(name) for name in sorted(names, key=str.lower)}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pin(layout: Layout, today: date) -> dict[str, object]:
    """What is pinned, and its age in days if the lock tells its day: nobody is asked."""
    from turbotool.upstream.lock import read_lock

    try:
        lock = read_lock(layout)
    except TurbotoolError as error:
        return {"error": error.message}
    up = lock.upstream
    age = (today - date.fromisoformat(up.date)).days if up.date else None
    return {
        "commit": up.commit,
        "source": up.source,
        "tree": lock.series.tree,
        "date": up.date,
        "age_days": age,
        "tag": up.tag,
        "known_as": up.known_as,
    }


def _tree(layout: Layout, locked: object) -> dict[str, object]:
    """The vendored tree: present, free of edits, and equal to the lock's tree after all patches."""
    if not (layout.tree / ".git").exists():
        return {"present": False}
    tree = Git(layout.tree)
    try:
        head = tree.tree_of("HEAD")
        edits = tree.status(env=UNLOCKED)
    except TurbotoolError as error:
        return {"present": True, "error": error.message}
    return {
        "present": True,
        "tree": head,
        "edited": len(edits),
        "applied": head == locked,
    }


def _build(layout: Layout, name: str) -> dict[str, object]:
    found = record.last_record(layout.build(name))
    if found is None:
        return {"backend": name, "finished": False}
    return {"backend": name, "finished": True, "version": found.reports, "files": len(found.outputs)}
