"""Real tools on a tiny project shaped like llama.cpp: the archive's bytes, its needs, and that it runs elsewhere."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from fake_tools import commit
from tiny_llama import FILES, real_site
from tiny_parts import write_parts

from turbotool.build.host import Choices
from turbotool.build.platforms import PLATFORMS, Platform, find_platform
from turbotool.programs.runner import Runner
from turbotool.release.package import MAX_GLIBC, Package, gather
from turbotool.release.unpacked import unpacked

pytestmark = pytest.mark.slow

EPOCH = 315532800
# As an assertion does, it keeps the name of its file.
MAIN = FILES["main.cpp"] + "const char * volatile here = __FILE__;\n"


def packaged(folder: Path, platform: Platform, **variables: str) -> Package:
    """A package of the tiny project, built in `folder`."""
    site = real_site(folder, **variables).asking(platform=platform, choices=Choices(portable=True))
    write_parts(site.layout.tree)
    site.layout.root.mkdir(parents=True)
    (site.layout.root / "LICENSE").write_text("words\n", encoding="utf-8")
    commit(site.layout.tree, {**FILES, "main.cpp": MAIN})
    site = site.setting(
        **{name: value for name, value in platform.compilers(site.env).items() if name in ("CC", "CXX")}
    )
    site.build()
    return gather(site.layout, site.request, platform, MAX_GLIBC, EPOCH)


def sha256_of(package: Package, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return hashlib.sha256(package.write(folder).read_bytes()).hexdigest()


def said_in_a_bare_environment(archive: Path, work: Path, *wrapper: str) -> str:
    with unpacked(archive, wrapper) as binaries:
        return Runner(binaries, work, 1).good("llama-cli", []).output.strip()


def test_two_folders_give_the_same_bytes_with_and_without_a_compiler_cache(tmp_path: Path) -> None:
    here = find_platform(None)
    one, two = packaged(tmp_path / "one", here), packaged(tmp_path / "a longer path (2)", here)
    digest = sha256_of(one, tmp_path / "first")
    assert sha256_of(two, tmp_path / "second") == digest
    if shutil.which("ccache"):
        cached = {"CCACHE_DISABLE": "", "CCACHE_NODISABLE": "1", "CCACHE_DIR": str(tmp_path / "ccache")}
        three = packaged(tmp_path / "three", here, **cached)
        assert list((tmp_path / "ccache").rglob("*M"))  # manifests, one for each compilation
        assert sha256_of(three, tmp_path / "third") == digest


def test_package_runs_elsewhere_and_says_which_linux_it_takes(tmp_path: Path) -> None:
    made = packaged(tmp_path / "build here", find_platform(None))
    archive = made.write(tmp_path)
    shutil.rmtree(tmp_path / "build here")
    assert said_in_a_bare_environment(archive, tmp_path) == f"0c1e57098-turbo-{made.tree[:9]} 42"
    if made.platform.system == "Linux":
        assert "libc.so.6" in made.needs.system
        assert made.needs.level.startswith("manylinux_2_")


@pytest.mark.skipif(not PLATFORMS["linux-x64"].native, reason="cross-compiles from x64")
def test_package_for_arm_is_cross_compiled_and_runs_under_the_emulator(tmp_path: Path) -> None:
    arm = PLATFORMS["linux-arm64"]
    if not shutil.which(f"{arm.cross}-g++") or not shutil.which(arm.emulator[0]):
        pytest.skip(f"needs {arm.cross}-g++ and {arm.emulator[0]}: apt-get install g++-{arm.cross} qemu-user")
    made = packaged(tmp_path / "build", arm)
    assert made.needs.level.endswith("_aarch64")
    said = said_in_a_bare_environment(made.write(tmp_path), tmp_path, *arm.emulator)
    assert said == f"0c1e57098-turbo-{made.tree[:9]} 42"
