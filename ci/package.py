"""Build, package and prove one target of matrix.toml on this machine: `python ci/package.py linux-x64-cpu`.

Writes to dist/ the archive, NAME.json for the release notes, and NAME.xml, the JUnit report of `turbotool verify`
on what was unpacked from it. `--prepare` only installs what the target needs here.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from matrix import Target, read_targets
from tool import run, turbotool

DIST = Path("dist")
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


def package(target: Target) -> None:
    """Make the archive and verify the programs in it. Raises SystemExit if either fails."""
    from turbotool.system.digest import sha256_file

    env = environment(target)
    chosen = ["--backend", target.backend, "--platform", target.platform]
    made = turbotool("package", *chosen, *target.options, env=env)
    archive = Path(made["archive"])
    if sha256_file(archive) != made["sha256"]:
        raise SystemExit(f"{archive} does not have the sha256 {made['sha256']} that turbotool package told")
    DIST.mkdir(exist_ok=True)
    proof = turbotool("verify", "--package", archive, "--report", DIST / f"{target.name}.xml", env=env)
    shutil.copy(archive, DIST)
    passed = sum(check["ok"] for check in proof["checks"])
    facts = {"name": target.name, "archive": archive.name, "sha256": made["sha256"], "bytes": archive.stat().st_size}
    (DIST / f"{target.name}.json").write_text(json.dumps({**facts, "passed": passed}), encoding="utf-8")


def main() -> None:
    targets = read_targets()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=targets)
    parser.add_argument("--prepare", action="store_true", help="only install what the target needs")
    given = parser.parse_args()
    (prepare if given.prepare else package)(targets[given.target])


if __name__ == "__main__":
    main()
