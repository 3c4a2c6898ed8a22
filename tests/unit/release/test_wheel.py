"""A wheel of the libraries of a package: what is in it, what its name says, and that pip and others read it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from command_line import Done, typed
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fake_bindings import add_bindings, make_sources
from fake_package import BUILT, EPOCH, LINUX, NEEDS, PROGRAM, TREE, fake_package
from fake_tools import commit
from installer.sources import WheelFile
from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename
from tiny_gguf import gguf, write
from tiny_parts import write_parts

from turbotool import __version__
from turbotool.bindings.carried import CarriedPackage
from turbotool.bindings.releases import FITTING
from turbotool.build.platforms import PLATFORMS, Platform
from turbotool.errors import BindingsDiffer, PackageError
from turbotool.layout import Layout
from turbotool.release.pack import Member, with_sums
from turbotool.release.package import Package
from turbotool.release.parts import PARTS
from turbotool.release.record import portable_record
from turbotool.release.sharedlibs import Binary, Needs
from turbotool.release.wheel import Wheel, gather, libraries, platform_tag, version_of
from turbotool.system.documents import encode
from turbotool.system.session import Session

CARRIED = CarriedPackage()
ORIGIN = ("$ORIGIN",)
OLD, NEW = frozenset({"GLIBC_2.17"}), frozenset({"GLIBC_2.34"})
BINARIES = (
    Binary("libllama.so.0.6.0", ("libggml.so.0", "libggml-base.so.0", "libc.so.6"), ORIGIN, OLD),
    Binary("libggml.so.0.26.0", ("libggml-base.so.0",), ORIGIN, OLD),
    Binary("libggml-base.so.0.26.0", ("libm.so.6",), ORIGIN, OLD),
    Binary("libggml-cpu-haswell.so", ("libggml-base.so.0",), ORIGIN, OLD),
    Binary("libmtmd.so.0.6.0", ("libllama.so.0",), ORIGIN, NEW),
    Binary("llama-cli", ("libllama.so.0",), ORIGIN, NEW),
)
LINKS = {
    link: target
    for stem, version in (("llama", "0.6.0"), ("ggml", "0.26.0"), ("ggml-base", "0.26.0"), ("mtmd", "0.6.0"))
    for link, target in (
        (f"lib{stem}.so", f"lib{stem}.so.0"),
        (f"lib{stem}.so.0", f"lib{stem}.so.{version}"),
    )
}
NAMED = ["libggml-base.so.0", "libggml-cpu-haswell.so", "libggml.so.0", "libllama.so"]
VERSION = f"{__version__}+0c1e57098.turboababababa.cpu"
FOLDER = f"turbotool_llama-{VERSION}.dist-info"


def library_package(layout: Layout) -> Package:
    """A package whose libraries are small files, of a tree that has headers and licences."""
    make_sources(write_parts(layout.tree))
    record = replace(BUILT, links=LINKS)
    files = {binary.name: binary.name.encode() for binary in BINARIES}
    members = {f"bin/{name}": Member(data, executable=True) for name, data in files.items()}
    members |= {f"licenses/{part.file_name}": Member(part.name.encode()) for part in PARTS}
    members |= {
        "licenses/LICENSE-turbotool": Member(b"our words"),
        "build.json": Member(encode(portable_record(record, NEEDS))),
    }
    return Package("llama-x", LINUX, "cpu", TREE, members, NEEDS, EPOCH, BINARIES)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "root", tmp_path / "work", tmp_path / "cache")


@pytest.fixture
def made(layout: Layout) -> Wheel:
    return gather(layout, library_package(layout), CARRIED, "2.35")


# Which libraries


def test_every_library_is_there_once_by_the_name_that_it_is_looked_for() -> None:
    named = libraries(BINARIES, LINKS, ["llama"], LINUX)
    assert sorted(named) == NAMED
    assert named["libllama.so"].name == "libllama.so.0.6.0"
    assert named["libggml-base.so.0"].name == "libggml-base.so.0.26.0"


def test_libraries_of_windows_and_macos_are_found() -> None:
    windows = [Binary("llama.dll", ("ggml.dll",), ()), Binary("ggml.dll", (), ()), Binary("ggml-cpu-x64.dll", (), ())]
    assert sorted(libraries(windows, {}, ["llama"], PLATFORMS["windows-x64"])) == sorted(one.name for one in windows)
    macos = [Binary("libllama.0.6.dylib", ("@rpath/libggml.0.dylib",), ()), Binary("libggml.0.26.dylib", (), ())]
    links = {"libllama.dylib": "libllama.0.6.dylib", "libggml.0.dylib": "libggml.0.26.dylib"}
    assert sorted(libraries(macos, links, ["llama"], PLATFORMS["macos-arm64"])) == ["libggml.0.dylib", "libllama.dylib"]


@pytest.mark.parametrize("links", [{}, {"libllama.so": "libllama.so.0", "libllama.so.0": "libllama.so"}])
def test_a_build_without_the_library_is_refused(links: dict[str, str]) -> None:
    with pytest.raises(PackageError, match=r"the build made no libllama\.so"):
        libraries([Binary("llama-cli", (), ())], links, ["llama"], LINUX)


# What the name says


@pytest.mark.parametrize(
    ("reports", "backend", "local"),
    [
        ("b11549-turbo-087677133", "cpu", "b11549.turbo087677133.cpu"),
        ("0c1e57098-turbo-ababababa", "cuda", "0c1e57098.turboababababa.cuda"),
        ("My_Fork--turbo-087677133", "cpu", "my.fork.turbo087677133.cpu"),
    ],
)
def test_version_names_upstream_tree_and_backend_as_pip_reads_it(reports: str, backend: str, local: str) -> None:
    version = version_of(reports, backend)
    assert version == f"{__version__}+{local}"
    name = f"turbotool_llama-{version}-py3-none-any.whl"
    assert str(parse_wheel_filename(name)[1]) == version  # pip would call it otherwise if it were written otherwise


@pytest.mark.parametrize(
    ("platform", "macos", "tag"),
    [
        ("linux-x64", "", "manylinux_2_34_x86_64"),
        ("windows-x64", "", "win_amd64"),
        ("macos-arm64", "14.5", "macosx_14_0_arm64"),
        ("macos-arm64", "10.15", "macosx_10_15_arm64"),
    ],
)
def test_tag_says_which_machines(platform: str, macos: str, tag: str) -> None:
    assert platform_tag(PLATFORMS[platform], NEEDS, [Binary("a", (), (), macos=macos)]) == tag


def test_a_newer_macos_counts_and_an_unknown_one_is_refused() -> None:
    both = [Binary("a", (), (), macos="9.9"), Binary("b", (), (), macos="13.0")]
    assert platform_tag(PLATFORMS["macos-arm64"], NEEDS, both) == "macosx_13_0_arm64"
    with pytest.raises(PackageError, match="which macOS"):
        platform_tag(PLATFORMS["macos-arm64"], NEEDS, [Binary("a", (), ())])


def test_the_level_is_that_of_the_libraries_not_of_the_programs(made: Wheel) -> None:
    assert made.needs == Needs(("libc.so.6", "libm.so.6"), (), "2.17", "manylinux_2_17_x86_64")
    assert made.file_name == f"turbotool_llama-{VERSION}-py3-none-manylinux_2_17_x86_64.whl"


# What is in it


def test_a_wheel_holds_libraries_package_licences_and_bill(made: Wheel) -> None:
    package = {name for name in made.members if not name.startswith(FOLDER)}
    sources = {f"turbotool_llama/{name}.py" for name in ("__init__", "build", "fit", "wire")}
    libs = {f"turbotool_llama/lib/{name}" for name in NAMED}
    assert package == {*sources, *libs, "turbotool_llama/build.json", "turbotool_llama.pth"}
    notices = {f"licenses/LICENSE-{name}" for name in ("turbotool", "llama.cpp", "ggml", "llamafile", "yarn")}
    info = {name.removeprefix(f"{FOLDER}/") for name in made.members if name.startswith(FOLDER)}
    assert info == {*notices, "METADATA", "WHEEL", "RECORD", "sboms/turbotool_llama.cdx.json"}
    assert made.members["turbotool_llama/lib/libllama.so"].data == b"libllama.so.0.6.0"
    build = json.loads(made.members["turbotool_llama/build.json"].data)
    assert (build["bin_dir"], build["tree"]) == ("lib", TREE)
    assert build["bindings"] == f"llama-cpp-python=={FITTING.version}"


def test_record_has_size_and_hash_of_every_file(made: Wheel, tmp_path: Path) -> None:
    with WheelFile.open(made.write(tmp_path)) as archive:
        archive.validate_record()
        assert {f"{name}" for name in archive.dist_info_filenames} > {"METADATA", "RECORD", "WHEEL"}


def test_what_was_changed_differs_from_the_record(made: Wheel, tmp_path: Path) -> None:
    changed = replace(made, members={**made.members, "turbotool_llama/lib/libllama.so": Member(b"other")})
    with (
        WheelFile.open(changed.write(tmp_path)) as archive,
        pytest.raises(WheelFile.validation_error, match=r"lib/libllama\.so"),
    ):
        archive.validate_record()


def test_the_same_package_gives_the_same_bytes(layout: Layout, tmp_path: Path) -> None:
    package = library_package(layout)
    backwards = replace(package, members=dict(reversed([*package.members.items()])), binaries=BINARIES[::-1])
    one = gather(layout, package, CARRIED, "").write(tmp_path)
    two = gather(layout, backwards, CARRIED, "").write(tmp_path / "other")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    later = gather(layout, replace(package, epoch=EPOCH + 100), CARRIED, "").write(tmp_path / "later")
    assert later.read_bytes() != one.read_bytes()


def test_metadata_hold_and_name_the_bindings_that_fit(made: Wheel) -> None:
    found = Metadata.from_email(made.members[f"{FOLDER}/METADATA"].data)
    assert (found.name, str(found.version)) == ("turbotool-llama", VERSION)
    assert str(found.license_expression) == "MIT"
    assert [f"{FOLDER}/licenses/{file}" in made.members for file in found.license_files or []] == [True] * 5
    (needed,) = found.requires_dist or []
    assert (needed.name, str(needed.specifier)) == ("llama-cpp-python", f"=={FITTING.version}")
    assert needed.marker
    assert needed.marker.evaluate({"extra": "llama-cpp-python"})
    assert not needed.marker.evaluate({"extra": ""})
    assert found.requires_python
    assert "3.10" in found.requires_python
    assert found.description == CARRIED.description


def test_bill_is_valid_and_names_the_libraries_and_what_is_in_them(made: Wheel) -> None:
    text = made.members[f"{FOLDER}/sboms/turbotool_llama.cdx.json"].data
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    bill = json.loads(text)
    found = {item["name"]: item for item in bill["components"]}
    digest = hashlib.sha256(b"libllama.so.0.6.0").hexdigest()
    assert found["turbotool_llama/lib/libllama.so"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert {name for name in found if "/" not in name} == {"llama.cpp", "ggml", "llamafile", "yarn"}
    assert bill["metadata"]["component"]["version"] == VERSION


@pytest.mark.parametrize(("max_glibc", "versions"), [("2.35", frozenset({"GLIBC_2.36"}))])
def test_libraries_that_need_a_newer_glibc_are_refused(
    layout: Layout, max_glibc: str, versions: frozenset[str]
) -> None:
    package = library_package(layout)
    newer = tuple(replace(one, versions=versions) if "haswell" in one.name else one for one in BINARIES)
    with pytest.raises(PackageError, match=r"libggml-cpu-haswell\.so need glibc 2\.36, newer than 2\.35"):
        gather(layout, replace(package, binaries=newer), CARRIED, max_glibc)


# Installed


@pytest.mark.skipif(os.name == "nt", reason="the libraries are those of Linux")
def test_pip_installs_it_and_the_bindings_find_its_libraries(made: Wheel, tmp_path: Path) -> None:
    everywhere = replace(made, name=made.name.replace("manylinux_2_17_x86_64", "any"))  # whatever this machine is
    words = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check"]
    packages = tmp_path / "packages"
    subprocess.run([*words, "--target", packages, everywhere.write(tmp_path)], check=True, capture_output=True)
    add_bindings(packages)
    code = f"import site; site.addsitedir({str(packages)!r}); import llama_cpp; print(llama_cpp.llama_cpp.libraries)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(packages / "turbotool_llama" / "lib")


# The command


@dataclass
class Tried:
    """What was tried out instead of installing it, and the error that this ends with."""

    wheels: list[str] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, session: Session, wheel: Path) -> None:
        assert wheel.is_file()
        self.wheels.append(wheel.name)
        if self.error:
            raise self.error


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    found = Tried()
    monkeypatch.setattr(CarriedPackage, "try_out", found)
    return found


def command(
    folder: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> Done:
    """`turbotool package --format wheel` as far as the build is done, with scripts in place of programs."""
    package = library_package(layout)
    commit(layout.tree, {"README.md": "A sentence of the documentation that is long enough to be prose.\n\n" * 100})
    programs = {name: item for name, item in fake_package(PROGRAM).members.items() if name.startswith("bin/")}
    here: Platform = replace(LINUX, machines=(os.uname().machine,), system=os.uname().sysname)
    package = replace(package, members=with_sums({**package.members, **programs}), platform=here)
    monkeypatch.setattr("turbotool.layout.find_layout", lambda: layout)
    monkeypatch.setattr("turbotool.release.package.collect", lambda *_: package)
    chosen = ["--model", str(write(folder, gguf())), "--check", "binaries-start"]
    return typed(["package", "--format", "wheel", *chosen, *words, "--json"], capsys)


posix = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


@posix
def test_wheel_gets_its_name_once_programs_and_bindings_ran(
    tmp_path: Path, layout: Layout, tried: Tried, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(tmp_path, layout, monkeypatch, capsys)
    assert done.code == 0, done.stderr
    wheel = Path(done.document["archive"])
    assert (wheel.parent, tried.wheels) == (layout.builds / "packages", [wheel.name])
    assert wheel.name.startswith(f"turbotool_llama-{VERSION}-py3-none-")
    assert done.document["sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert (done.document["format"], done.document["verified"]) == ("wheel", True)
    assert [check["name"] for check in done.document["checks"]] == ["binaries-start"]
    assert {path.name for path in wheel.parent.iterdir()} == {wheel.name, f"{wheel.name}.sha256"}


@posix
def test_wheel_whose_libraries_do_not_fit_the_bindings_is_not_kept(
    tmp_path: Path, layout: Layout, tried: Tried, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried.error = BindingsDiffer("they do not fit")
    done = command(tmp_path, layout, monkeypatch, capsys)
    assert (done.code, done.document["error"]["message"]) == (BindingsDiffer.exit_code, "they do not fit")
    assert list((layout.builds / "packages").iterdir()) == []


@posix
def test_wheel_that_is_not_verified_is_not_tried(
    tmp_path: Path, layout: Layout, tried: Tried, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(tmp_path, layout, monkeypatch, capsys, "--no-verify")
    assert (done.code, done.document["verified"], tried.wheels) == (0, False, [])


@posix
def test_a_wheel_for_another_machine_is_not_tried_and_that_is_said(
    tmp_path: Path, layout: Layout, tried: Tried, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(LINUX, name="linux-other", machines=("abacus",))
    monkeypatch.setattr("turbotool.release.run.find_platform", lambda _: other)
    done = command(tmp_path, layout, monkeypatch, capsys, "--platform", "linux-other")
    assert (done.code, tried.wheels) == (0, [])
    assert f"not tried with {CARRIED.requirement}: the libraries are for linux-other" in done.stderr
