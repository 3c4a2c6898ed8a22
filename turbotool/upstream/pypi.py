"""One hash-locked file from PyPI, through pip, so that a person's mirrors, proxies and certificates are used."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from turbotool.errors import HashMismatch, NoSpace, SourceError
from turbotool.system import process
from turbotool.system.archive import newest_time, read_text
from turbotool.system.digest import check_sha256, sha256_file
from turbotool.system.files import need_space, space_guard, sync_folder
from turbotool.system.locks import file_lock
from turbotool.system.output import Output
from turbotool.upstream.lock import FULL_ID, Upstream
from turbotool.upstream.packages import PACKAGES

MISMATCH = "DO NOT MATCH THE HASHES"  # as pip says it
# pip builds a source distribution's metadata even to download it. This backend answers in the stead of whichever one
# the archive names, so that no code of the archive runs and its build requirements (35 s of downloads) are not needed.
# The process that answers learns from these variables which backend to import; their names differ by pip's age.
SHIM = "turbotool_backend"
CUSTOMIZE = """
import os
import sys

for prefix in ("_PYPROJECT_HOOKS_", "PEP517_"):
    if prefix + "BUILD_BACKEND" in os.environ:
        os.environ[prefix + "BUILD_BACKEND"] = "turbotool_backend"
        os.environ.pop(prefix + "BACKEND_PATH", None)

# whatever this environment customises itself comes next, as if this file were not there
here, own = os.path.dirname(__file__), sys.modules.pop("sitecustomize")
sys.path.remove(here)
try:
    import sitecustomize
except ImportError:
    pass
sys.modules.setdefault("sitecustomize", own)
sys.path.insert(0, here)
"""
BACKEND = """
import os
from pathlib import Path


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["TURBOTOOL_SHIM"].split("==")
    folder = Path(metadata_directory, f"{name.replace('-', '_')}-{version}.dist-info")
    folder.mkdir()
    text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return folder.name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    raise RuntimeError("this backend only names the package")
"""


def fetch_pypi(package: str, version: str, archive: str, sha256: str, size: int, into: Path, out: Output) -> Path:
    """The file `archive` of a PyPI release in the folder `into`, downloaded once, its sha256 verified on every call.

    `size` is in bytes, 0 if unknown. A wheel is never installed and nothing of it runs; nothing of a source
    distribution runs before its hash has matched. Raises SourceError (the message ends with pip's own words; the full
    log is beside the file), HashMismatch, NoSpace.
    """
    path = into / archive
    if path.parent != into or not archive or archive in (".", ".."):
        raise SourceError(f"{archive!r} is not a file name", hint="correct it in vendor/lock.toml")
    if _matches(path, sha256):
        return path
    with file_lock(into / "lock", out, f"download {archive}"):
        if _matches(path, sha256):  # another process was faster
            return path
        if path.exists():
            out.warn(f"{path} does not have the locked sha256; it is downloaded again")
        need_space(into, size, f"downloading {archive}")
        out.say(f"downloading {archive}{f' ({size / 2**20:.0f} MiB)' if size else ''}")
        with tempfile.TemporaryDirectory(prefix=".pip-", dir=into) as folder, space_guard(path):
            found = _download(f"{package}=={version}", archive, sha256, Path(folder), into / f"{archive}.log")
            check_sha256(found, sha256)
            found.replace(path)
        sync_folder(into)
    return path


def learn_sha256(package: str, version: str, archive: str, into: Path, out: Output) -> str:
    """The sha256 of a release's source distribution that the index serves, for a release that is not locked yet.

    pip is asked for a hash that no file has: it downloads the file and names the real one, and nothing of it runs.
    Raises SourceError.
    """
    out.say(f"asking the package index for {package} {version}")
    into.mkdir(parents=True, exist_ok=True)
    log = into / f"{archive}.log"
    with file_lock(into / "lock", out, f"look up {archive}"), tempfile.TemporaryDirectory(dir=into) as folder:
        try:
            _download(f"{package}=={version}", archive, "0" * 64, Path(folder), log)
        except HashMismatch as error:
            if match := re.search(r"Got\s+([0-9a-f]{64})", error.message):
                return match[1]
    raise SourceError(f"pip does not tell the sha256 of {package} {version}", hint=f"read {log}")


def learn_release(wanted: Upstream, into: Path, out: Output) -> Upstream:
    """A release that is not locked yet with what only its source distribution tells: sha256, size, commit and day.

    What the archive does not record stays empty. Raises SourceError, HashMismatch, ArchiveError, NoSpace.
    """
    sha256 = learn_sha256(wanted.package, wanted.version, wanted.archive, into, out)
    path = fetch_pypi(wanted.package, wanted.version, wanted.archive, sha256, 0, into, out)
    commit, date = submodule_commit(path, wanted.subdir), submodule_date(path, wanted.subdir)
    known = PACKAGES.get(wanted.package)
    if not date and known and known.dated:
        date = day(newest_time(path, wanted.subdir))
    return replace(wanted, sha256=sha256, size=path.stat().st_size, commit=commit, date=date)


def submodule_commit(archive: Path, subdir: str) -> str:
    """The commit of the git submodule `subdir`, if the source distribution kept git's own record of it; else ''."""
    top, _, inner = subdir.partition("/")
    text = read_text(archive, f"{top}/.git/modules/{inner}/HEAD", limit=64).strip()
    return text if FULL_ID.fullmatch(text) else ""


def submodule_date(archive: Path, subdir: str) -> str:
    """The day in UTC, such as 2026-01-31, on which git last checked the submodule out to make the release; else ''."""
    top, _, inner = subdir.partition("/")
    text = read_text(archive, f"{top}/.git/modules/{inner}/logs/HEAD", limit=1 << 16)
    times = re.findall(r"^[0-9a-f]{40} [0-9a-f]{40} .*> (\d{1,10}) [+-]\d{4}\t", text, re.MULTILINE)
    return day(int(times[-1])) if times else ""


def day(seconds: int) -> str:
    """A time as a day in UTC, such as 2026-01-31; '' for 0, which is none."""
    return datetime.fromtimestamp(seconds, timezone.utc).date().isoformat() if seconds else ""


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _download(requirement: str, archive: str, sha256: str, folder: Path, log: Path) -> Path:
    """The file with that hash, in `folder`/files. The quick way first; pip's plain way if that does not work.

    Of `archive` only the ending counts: an index may write the name of an older release in another way.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    log.unlink(missing_ok=True)
    wheel = archive.endswith(".whl")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        "--progress-bar=off",
    ]
    command += ["--only-binary" if wheel else "--no-binary", ":all:", "--dest", folder / "files", "-r", requirements]
    # A constraint on the locked package could only contradict the lock, and constraints without hashes break hash mode.
    env = {**os.environ, "PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if not wheel:
        shim = folder / "shim"
        shim.mkdir()
        (shim / "sitecustomize.py").write_text(CUSTOMIZE, encoding="utf-8")
        (shim / f"{SHIM}.py").write_text(BACKEND, encoding="utf-8")
        paths = os.pathsep.join((str(shim), *filter(None, [env.get("PYTHONPATH")])))
        quick = {**env, "PYTHONPATH": paths, "TURBOTOOL_SHIM": requirement}
        words = [*command, "--no-build-isolation", "--use-pep517"]
        done = process.run(words, cwd=folder, env=quick, log=log, check=False)
        if done.returncode == 0:
            return _only_file(folder / "files")
        if MISMATCH in done.output:  # it would be downloaded again to no avail
            raise _failure(requirement, done.output, log)
    done = process.run(command, cwd=folder, env=env, log=log, check=False)
    if done.returncode != 0:
        raise _failure(requirement, done.output, log)
    return _only_file(folder / "files")


def _only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()  # a single requirement without its dependencies
    return path


def _failure(requirement: str, output: str, log: Path) -> Exception:
    tail = "\n".join(output.splitlines()[-8:])
    if "No space left on device" in output:
        return NoSpace(f"no space left while pip downloaded {requirement}", hint="free some space, then run it again")
    if MISMATCH in output:
        lines = [line.strip() for line in output.splitlines() if line.strip().startswith(("Expected", "Got"))]
        hint = "the index serves another file than the locked one: check the index that pip is configured for"
        return HashMismatch(f"{requirement}: sha256 differs: {', '.join(lines)}", hint=hint)
    if any(
        word in output
        for word in ("NewConnectionError", "ConnectTimeout", "NameResolution", "Max retries", "ProxyError")
    ):
        what, hint = "no connection to the package index", "check the network, or set PIP_INDEX_URL or HTTPS_PROXY"
    elif "No matching distribution" in output or "Could not find a version" in output:
        what, hint = "the package index has no such file", "check the index that pip is configured for: pip config list"
    else:
        what, hint = "pip failed", f"read {log}"
    return SourceError(f"cannot download {requirement}: {what}; full log in {log}\n{tail}", hint=hint)
