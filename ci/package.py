"""Build, package and prove one target of matrix.toml on this machine: `python ci/package.py linux-x64-cpu`.

Writes to dist/ the archive, its bill of materials (.cdx.json), the wheel of its libraries, NAME.json for the release
notes, and NAME.xml, the JUnit report of `turbotool verify` on what was unpacked from the archive. `--prepare` only
installs what the target needs here; `--again` builds once more and compares with archive and wheel in dist/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matrix import Target, read_targets
from tool import run, turbotool

DIST = Path("dist")
BILL = "sbom.cdx.json"
WHEEL = ("--format", "wheel")
VCVARS = "VC/Auxiliary/Build/vcvars64.bat"
COMPILER = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"


def prepare(target: Target) -> None:
    """Install the target's system packages, then turbotool itself with the extras that it needs."""
    for command in target.install:
        words = shlex.split(command)
        run([shutil.which(words[0]) or words[0], *words[1:]])
    extras = ",".join(["package", *target.extras])
    run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-e", f".[{extras}]"])


def environment(target: Target) -> dict[str, str]:
    """Variables under which the compilers are found: those of this process, on Windows Visual Studio's beside them."""
    if not target.platform.startswith("windows"):
        return dict(os.environ)
    vswhere = Path(os.environ["PROGRAMFILES(X86)"], "Microsoft Visual Studio", "Installer", "vswhere.exe")
    wanted = ["-latest", "-products", "*", "-requires", COMPILER, "-property", "installationPath"]
    folder = run([vswhere, *wanted]).strip()
    found = variables(run(["cmd", "/d", "/c", "call", Path(folder, VCVARS), ">nul", "&&", "set"]))
    return {**found, **vulkan_sdk()}


def variables(text: str) -> dict[str, str]:
    """NAME=VALUE lines, as `set` prints them, as a mapping."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if name and equals}


def vulkan_sdk() -> dict[str, str]:
    """Where the SDK is, if one was installed after this process had got its variables."""
    folders = sorted(Path("C:/VulkanSDK").glob("*/Include/vulkan/vulkan.h"))
    return {"VULKAN_SDK": str(folders[-1].parents[2])} if folders else {}


def make(target: Target, env: Mapping[str, str], *more: str) -> dict[str, Any]:
    """The document of `turbotool package`. Raises SystemExit if the file is not the one that it tells."""
    from turbotool.system.digest import sha256_file

    chosen = ["--backend", target.backend, "--platform", target.platform]
    made = turbotool("package", *chosen, *target.options, *more, env=env)
    if sha256_file(Path(made["archive"])) != made["sha256"]:
        raise SystemExit(f"{made['archive']} does not have the sha256 {made['sha256']} that turbotool package told")
    return made


def facts(made: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a file: its name, sha256 and size in bytes."""
    file = Path(made["archive"])
    return {"archive": file.name, "sha256": made["sha256"], "bytes": file.stat().st_size}


def package(target: Target) -> None:
    """Make the archive and the wheel, and verify the programs. Raises SystemExit if any of that fails."""
    env = environment(target)
    made = make(target, env)
    archive = Path(made["archive"])
    DIST.mkdir(exist_ok=True)
    proof = turbotool("verify", "--package", archive, "--report", DIST / f"{target.name}.xml", env=env)
    wheel = make(target, env, *WHEEL)
    for file in (archive, wheel["archive"]):
        shutil.copy(file, DIST)
    (DIST / bill_name(archive.name)).write_bytes(contents(archive)[BILL])
    passed = sum(check["ok"] for check in proof["checks"])
    record = {"name": target.name, **facts(made), "passed": passed, "wheel": facts(wheel)}
    (DIST / f"{target.name}.json").write_text(json.dumps(record), encoding="utf-8")


def bill_name(archive: str) -> str:
    """What the bill of materials of an archive is called beside it."""
    return f"{archive.removesuffix('.zip').removesuffix('.tar.gz')}.cdx.json"


def contents(archive: Path) -> dict[str, bytes]:
    """Every file of an archive of ours by its name below the one folder, or of a wheel, which has none."""
    if archive.suffix in (".zip", ".whl"):
        with zipfile.ZipFile(archive) as packed:
            files = {name: packed.read(name) for name in packed.namelist()}
        return files if archive.suffix == ".whl" else {name.partition("/")[2]: data for name, data in files.items()}
    with tempfile.TemporaryDirectory() as scratch:
        shutil.unpack_archive(archive, scratch, filter="data")
        (folder,) = Path(scratch).iterdir()
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def again(target: Target) -> None:
    """Make archive and wheel once more. Raises SystemExit, naming what differs, unless they have the same bytes."""
    record, env = json.loads((DIST / f"{target.name}.json").read_text(encoding="utf-8")), environment(target)
    compare(record, make(target, env, "--no-verify"))
    compare(record["wheel"], make(target, env, *WHEEL, "--no-verify"))


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raise SystemExit, naming what differs, unless what was made again is what the record in dist/ tells."""
    if second["sha256"] == first["sha256"]:
        print(f"{first['archive']}: the same {first['bytes']} bytes, sha256 {first['sha256']}")
        return
    one, two = contents(DIST / first["archive"]), contents(Path(second["archive"]))
    names = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
    raise SystemExit(
        f"built again, {first['archive']} has sha256 {second['sha256']} instead of {first['sha256']}; what differs: "
        f"{', '.join(names) or 'the archive itself, not what it holds'}"
    )


def main() -> None:
    targets = read_targets()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=targets)
    parser.add_argument("--prepare", action="store_true", help="only install what the target needs")
    parser.add_argument("--again", action="store_true", help="compare with what is in dist/ instead of writing there")
    given = parser.parse_args()
    (prepare if given.prepare else again if given.again else package)(targets[given.target])


if __name__ == "__main__":
    main()
