"""The real packages: built, bound to their bytes, and proven on a bare Debian 12 and as ARM programs.

Compiling llama.cpp for every CPU takes long, so these run on demand: `pytest -m release`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import NEED_A_DEVICE, document, finished, started
from local_trust import Identity, LocalTrust

from turbotool import __version__
from turbotool.build.platforms import PLATFORMS
from turbotool.errors import WrongSigner
from turbotool.layout import find_layout

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(not PLATFORMS["linux-x64"].native, reason="packages for Linux, built on x64"),
]

HOURS = 4 * 3600
WHEEL = ("--format", "wheel")
MIB = 1 << 20
# A text takes the emulator too long; these start every program, and run the codec and a few tokens through a cache.
UNDER_EMULATION = ("binaries-start", "turbo-codec", "kv-buffer-size", "generation-q8_0-turbo4")
# skipped in an archive: they need a device, or programs that are not packed
SKIPPED = NEED_A_DEVICE | {"attention-memory", "calibration", "calibrated-architectures"}
TOOLS_OF_A_DEVELOPER = ("cc", "gcc", "c++", "python3")


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    return document("package", timeout=HOURS)


@pytest.fixture(scope="module")
def wheel(package: dict[str, Any]) -> dict[str, Any]:
    """Of the build that the archive is made of, too."""
    return document("package", *WHEEL, timeout=HOURS)


def test_package_is_small_and_proven_after_unpacking(package: dict[str, Any]) -> None:
    assert package["bytes"] < 60 * MIB
    assert package["verified"]
    assert all(check["ok"] for check in package["checks"] if not check["skipped"])
    assert {check["name"] for check in package["checks"] if check["skipped"]} <= SKIPPED
    assert package["needs"]["glibc"] <= "2.35"


def test_wheel_is_proven_with_its_bindings_and_runs_where_its_name_says(wheel: dict[str, Any]) -> None:
    assert wheel["verified"]
    assert wheel["needs"]["glibc"] <= "2.35"
    file = Path(wheel["archive"])
    # a backend for each generation of CPUs is in it, of which each machine loads one that it can run
    show = [sys.executable, "-m", "auditwheel", "show", "--disable-isa-ext-check", str(file)]
    said = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    tag = file.stem.rpartition("-")[2]
    assert f'is consistent with the following platform tag: "{tag}"' in " ".join(said.split())


def test_another_work_folder_gives_the_same_sha256(
    package: dict[str, Any], wheel: dict[str, Any], tmp_path: Path
) -> None:
    # without the cache, which would hand out the first folder's object files
    elsewhere = {"TURBOTOOL_WORK": str(tmp_path / "another place"), "CCACHE_DISABLE": "1"}
    again = document("package", "--no-verify", variables=elsewhere, timeout=HOURS)
    assert again["archive"] != package["archive"]
    assert again["sha256"] == package["sha256"]
    again = document("package", *WHEEL, "--no-verify", variables=elsewhere, timeout=HOURS)
    assert again["archive"] != wheel["archive"]
    assert again["sha256"] == wheel["sha256"]


def test_package_is_fetched_checked_against_the_lock_and_proven(package: dict[str, Any], tmp_path: Path) -> None:
    archive, trust, ours = Path(package["archive"]), LocalTrust(), Identity(ref=f"refs/tags/v{__version__}")
    root, elsewhere = trust.write(tmp_path / "trusted_root.json"), {"TURBOTOOL_WORK": str(tmp_path / "work")}
    attested = {
        "good": trust.attestation(archive, ours),
        "theirs": trust.attestation(archive, Identity("mallory/fork")),
    }
    proofs = {name: tmp_path / f"{name}.json" for name in attested}
    for name, data in attested.items():
        proofs[name].write_bytes(data)
    get = ("fetch", archive, "--trust-root", root, "--attestation")
    refused = finished(started(*get, proofs["theirs"], "--json", variables=elsewhere), WrongSigner.exit_code)
    assert refused["error"]["class"] == "WrongSigner"
    fetched = document(*get, proofs["good"], variables=elsewhere, timeout=HOURS)
    held = {one["name"]: one["detail"] for one in fetched["held"]}
    assert held["lock"].endswith("as in vendor/lock.toml")
    assert (fetched["verified"], fetched["sha256"]) == (True, package["sha256"])
    assert all(check["ok"] for check in fetched["checks"] if not check["skipped"])
    assert {check["name"] for check in fetched["checks"] if check["skipped"]} <= SKIPPED


def test_package_is_proven_on_a_bare_debian_12(package: dict[str, Any], tmp_path: Path) -> None:
    for program, name in (("mmdebstrap", "mmdebstrap"), ("bwrap", "bubblewrap")):
        if not shutil.which(program):
            pytest.skip(f"needs {program}: apt-get install {name}")
    root = tmp_path / "root"
    subprocess.run(["mmdebstrap", "--variant=minbase", "bookworm", root], check=True, timeout=HOURS)  # noqa: S607
    assert not [name for name in TOOLS_OF_A_DEVELOPER if (root / "usr" / "bin" / name).exists()]
    layout = find_layout()
    places = [word for place in ("/tmp", layout.work, layout.cache) for word in ("--bind", str(place), str(place))]  # noqa: S108
    wrapper = shlex.join(["bwrap", "--bind", str(root), "/", *places, "--dev", "/dev", "--proc", "/proc"])
    assert document("verify", "--package", package["archive"], "--quick", "--wrapper", wrapper)["ok"]


def test_package_for_arm_is_cross_compiled_and_proven_under_the_emulator() -> None:
    names = [word for name in UNDER_EMULATION for word in ("--check", name)]
    made = document("package", "--platform", "linux-arm64", *names)
    assert [check["name"] for check in made["checks"] if check["ok"]] == list(UNDER_EMULATION)
    assert made["bytes"] < 60 * MIB
    assert made["needs"]["manylinux"].endswith("_aarch64")
