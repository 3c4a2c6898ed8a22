from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform as host
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Done, typed
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fake_package import BUILT, EPOCH, LINUX, NEEDS, PROGRAM, TREE, fake_package, record_of
from fake_tools import QUIET, commit, fake_site, says
from tiny_gguf import gguf, write
from tiny_parts import write_parts

from turbotool.build.environment import source_epoch
from turbotool.build.platforms import find_platform
from turbotool.build.record import BuiltFrom
from turbotool.build.targets import PACKAGED
from turbotool.errors import (
    ArchiveError,
    BackendUnavailable,
    HashMismatch,
    PackageError,
    ToolMissing,
    UsageMistake,
    VerificationFailed,
)
from turbotool.layout import Layout
from turbotool.programs.binaries import Binaries
from turbotool.programs.runner import Runner
from turbotool.release import package, sbom
from turbotool.release.pack import Member, with_sums, write_archive
from turbotool.release.parts import PARTS, Part, licence_text, licence_texts, version_of
from turbotool.release.record import PackageRecord, portable_record
from turbotool.release.sharedlibs import Binary, Needs, account, read_binary
from turbotool.release.unpacked import unpacked
from turbotool.system.documents import decode, encode

ORIGIN = ("$ORIGIN",)
posix = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def linux(*binaries: Binary, backend: str = "cpu", max_glibc: str = "") -> Needs:
    return account(binaries, [binary.name for binary in binaries], LINUX, backend, max_glibc)


# What the programs need


def test_every_library_is_accounted_for_and_the_oldest_linux_is_named() -> None:
    library = Binary("libggml.so.0", ("libc.so.6",), (), frozenset({"GLIBC_2.2.5", "GLIBC_2.34"}))
    program = Binary("llama-cli", ("libggml.so.0", "libstdc++.so.6"), ORIGIN, frozenset({"GLIBCXX_3.4.30"}))
    needs = linux(program, library, max_glibc="2.36")
    assert needs == Needs(("libc.so.6", "libstdc++.so.6"), (), "2.34", "manylinux_2_35_x86_64")
    assert str(needs) == "needs libc.so.6, libstdc++.so.6; glibc 2.34 or newer (manylinux_2_35_x86_64)"


def test_library_from_nowhere_is_named_with_the_program_that_needs_it() -> None:
    with pytest.raises(PackageError, match=r"llama-cli needs libgomp\.so\.1, which neither"):
        linux(Binary("llama-cli", ("libgomp.so.1",), ORIGIN))


def test_search_path_with_an_empty_entry_is_refused() -> None:
    """A loader takes the empty entry for the folder that the user happens to be in."""
    with pytest.raises(PackageError, match=r"llama-cli looks for libraries in '\$ORIGIN:'"):
        linux(Binary("llama-cli", ("libc.so.6",), ("$ORIGIN:",)))


def test_program_that_cannot_find_our_library_is_refused() -> None:
    with pytest.raises(PackageError, match="llama-cli looks for libraries in 'the system's folders'"):
        linux(Binary("llama-cli", ("libggml.so.0",), ()), Binary("libggml.so.0", (), ()))


def test_newer_glibc_than_allowed_names_the_files() -> None:
    old, new = Binary("old", (), (), frozenset({"GLIBC_2.9"})), Binary("new", (), (), frozenset({"GLIBC_2.38"}))
    with pytest.raises(PackageError, match=r"\nnew need glibc 2\.38, newer than 2\.36: build on an older system"):
        linux(old, new, max_glibc="2.36")


def test_driver_libraries_belong_to_their_backend() -> None:
    binary = Binary("libggml-vulkan.so", ("libvulkan.so.1",), ())
    assert linux(binary, backend="vulkan").drivers == ("libvulkan.so.1",)
    with pytest.raises(PackageError, match=r"libvulkan\.so\.1"):
        linux(binary)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(PackageError) as caught:
        linux(Binary("a", ("libx.so.1",), ("/opt/lib",)), Binary("b", ("liby.so.2",), ORIGIN))
    assert [word in caught.value.message for word in ("/opt/lib", "libx.so.1", "liby.so.2")] == [True] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file of this system")
def test_headers_of_a_real_library_are_read() -> None:
    import lief

    library = next(path for path in Path(lief.__file__).parent.glob("*.so"))
    found = read_binary(library)
    assert "libc.so.6" in found.needed
    assert any(version.startswith("GLIBC_2.") for version in found.versions)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "llama-cli"
    text.write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(PackageError, match="neither a program nor a shared library"):
        read_binary(text)


# Archives


def members() -> dict[str, Member]:
    return {
        "bin/llama-cli": Member(b"program", executable=True),
        "bin/libggml.so": Member(link="libggml.so.0"),
        "bin/libggml.so.0": Member(b"library", executable=True),
        "licenses/LICENSE": Member(b"words"),
    }


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_archive_does_not_depend_on_order_or_time(tmp_path: Path, suffix: str) -> None:
    files = {name: item for name, item in members().items() if suffix == ".tar.gz" or not item.link}
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_archive(first, "p", files, EPOCH)
    os.utime(first, (0, 0))
    write_archive(second, "p", dict(reversed(files.items())), EPOCH)
    assert first.read_bytes() == second.read_bytes()
    write_archive(second, "p", files, EPOCH + 100)
    assert first.read_bytes() != second.read_bytes()


def test_tar_holds_modes_links_and_nothing_of_the_machine(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar.gz", "p", members(), EPOCH)
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        found = {item.name: item for item in tar}
    assert list(found) == [f"p/{name}" for name in sorted(members())]
    assert {(item.uid, item.gid, item.uname, item.gname, item.mtime) for item in found.values()} == {
        (0, 0, "", "", EPOCH)
    }
    assert [found[f"p/{name}"].mode for name in ("bin/llama-cli", "licenses/LICENSE")] == [0o755, 0o644]
    assert found["p/bin/libggml.so"].linkname == "libggml.so.0"


def test_zip_holds_modes(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", "p", {"x": Member(b"1", executable=True)}, EPOCH)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.infolist()[0].external_attr >> 16 == 0o100755


def test_sums_name_every_file_and_no_link() -> None:
    sums = with_sums(members())["SHA256SUMS"].data.decode().splitlines()
    assert [line.split("  ")[1] for line in sums] == ["bin/libggml.so.0", "bin/llama-cli", "licenses/LICENSE"]
    assert sums[1].split("  ")[0] == hashlib.sha256(b"program").hexdigest()


# What a user unpacks


def packed(folder: Path, **more: Member) -> Path:
    files = {**members(), "build.json": Member(record_of()), **more}
    write_archive(folder / "p.tar.gz", "p", with_sums(files), EPOCH)
    return folder / "p.tar.gz"


def test_package_says_what_it_is(tmp_path: Path) -> None:
    with unpacked(packed(tmp_path), ("qemu-aarch64",)) as binaries:
        assert (binaries.tree, binaries.backend, binaries.bare) == (TREE, "cpu", True)
        assert "test-turbo" in binaries.programs
        assert "test-quantize-fns" not in binaries.programs
        assert binaries.path("llama-cli").read_bytes() == b"program"
        assert binaries.command("llama-cli") == ("qemu-aarch64", binaries.path("llama-cli"))
    assert not binaries.bin_dir.exists()


def test_changed_missing_and_added_files_are_refused(tmp_path: Path) -> None:
    good = with_sums({**members(), "build.json": Member(record_of())})
    program = "bin/llama-cli"
    for files in (
        {**good, program: replace(good[program], data=b"evil")},
        {name: item for name, item in good.items() if name != program},
        {**good, "bin/more": Member(b"1")},
    ):
        write_archive(tmp_path / "p.tar.gz", "p", files, EPOCH)
        with pytest.raises(HashMismatch, match="SHA256SUMS"), unpacked(tmp_path / "p.tar.gz"):
            pass


def test_archive_that_differs_from_the_sum_beside_it_is_not_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path)
    archive.write_bytes(archive.read_bytes()[:-20])
    (tmp_path / "p.tar.gz.sha256").write_text(f"{'0' * 64}  p.tar.gz\n", encoding="utf-8")
    with pytest.raises(HashMismatch, match=r"p\.tar\.gz\.sha256 says 0000"), unpacked(archive):
        pass


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"", "is not JSON"),
        (b"[]", "is no object"),
        (record_of(tree="../.."), "names no tree or no backend"),
        (record_of(backend="abacus"), "names no tree or no backend"),
        (record_of(backend=7), r"got `int` - at `\$\.backend`"),
        (record_of(targets="x"), r"got `str` - at `\$\.targets`"),
        (record_of(outputs=[{"name": "a", "sha256": "b"}]), r"missing required field `bytes` - at `\$\.outputs\[0\]`"),
        (record_of(version=3), "is of version 3 of turbotool.package-record, newer than 2"),
        (record_of(schema=1, version="x"), "is of version 1, older than 2: an older turbotool made it"),
    ],
)
def test_record_that_is_none_is_refused(tmp_path: Path, record: bytes, said: str) -> None:
    archive = packed(tmp_path, **{"build.json": Member(record)})
    with pytest.raises(ArchiveError, match=rf"p\.tar\.gz.* build\.json .*{said}") as caught, unpacked(archive):
        pass
    assert len(caught.value.message.splitlines()) == 1


def test_archive_without_a_record_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "p.tar.gz", "p", with_sums(members()), EPOCH)
    with pytest.raises(ArchiveError, match=r"no build\.json in it"), unpacked(tmp_path / "p.tar.gz"):
        pass


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.tar.gz", "wb") as stream:
        stream.write(b"text")
    with pytest.raises(ArchiveError), unpacked(tmp_path / "x.tar.gz"):
        pass


@posix
def test_bare_programs_get_nothing_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    says(tmp_path / "llama-cli", "x").write_text("#!/bin/sh\nenv\n", encoding="utf-8")
    runner = Runner(Binaries(tmp_path, wrapper=("env", "WRAPPED=yes"), bare=True), tmp_path, 1)
    lines = runner.good("llama-cli", [], env={"LLAMA_ATTN_ROT_DISABLE": "1"}).output.splitlines()
    names = {line.partition("=")[0] for line in lines} - {"PWD", "_", "SHLVL", "OLDPWD"}
    assert names == {"PATH", "WRAPPED", "LLAMA_ATTN_ROT_DISABLE", "LLAMA_ARG_KV_CALIBRATION", "LLAMA_CACHE"}


# Licences and the bill of materials


def test_every_part_has_its_words_and_versions_are_found(tmp_path: Path) -> None:
    tree = write_parts(tmp_path)
    texts = licence_texts(tree)
    assert texts["LICENSE-llamafile"] == "Copyright 2024 Mozilla Foundation\n\nSOFTWARE.\n"
    assert texts["LICENSE-miniaudio"] == "ALTERNATIVE 2 - MIT\nSOFTWARE.\n"
    assert texts["LICENSE-sha256"] == "licence of sha256\n"
    assert {part.name: version_of(part, tree) for part in PARTS if part.version} == {
        "ggml": "0.25.3",
        "cpp-httplib": "0.58.0",
        "nlohmann-json": "3.12.0",
        "miniaudio": "0.11.25",
        "stb_image": "2.30",
        "xxhash": "0.8.3",
    }


def test_vendored_folder_without_a_known_licence_stops_the_package(tmp_path: Path) -> None:
    (write_parts(tmp_path) / "vendor" / "left-pad").mkdir()
    with pytest.raises(PackageError, match="upstream vendors left-pad, whose licence is not known"):
        licence_texts(tmp_path)


def test_licence_that_moved_stops_the_package(tmp_path: Path) -> None:
    (tmp_path / "x.h").write_text("first\nmiddle\n", encoding="utf-8")
    with pytest.raises(PackageError, match=r"x\.h no longer holds the licence of x"):
        licence_text(Part("x", "", "MIT", "x.h", ("first", "last")), tmp_path)
    with pytest.raises(PackageError, match=r"y\.h, for the licence of x: No such file"):
        licence_text(Part("x", "", "MIT", "y.h"), tmp_path)
    with pytest.raises(PackageError, match=r"x\.h no longer tells the version of x"):
        version_of(Part("x", "", "MIT", "x.h", version=("x.h", r"v(\d+)")), tmp_path)


def test_bill_is_valid_cyclonedx_and_the_same_every_time(tmp_path: Path) -> None:
    tree = write_parts(tmp_path)
    hashes = {"bin/llama-cli": "ab" * 32}
    made = [sbom.bill("p", "1-turbo-2", BuiltFrom("c" * 40, "git"), hashes, tree, EPOCH) for _ in range(2)]
    assert made[0] == made[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made[0].decode()) is None
    document = json.loads(made[0])
    kinds = {item["name"]: item for item in document["components"]}
    assert kinds["bin/llama-cli"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert kinds["llama.cpp"]["purl"] == f"pkg:github/ggml-org/llama.cpp@{'c' * 40}"
    assert {part.name for part in PARTS} <= kinds.keys()


@pytest.mark.parametrize(
    ("upstream", "version", "address"),
    [
        (BuiltFrom("", "pypi", "b7", "e" * 40), "b7", "@b7"),
        (BuiltFrom("c" * 40, "pypi", "", "e" * 40), "c" * 40, f"@{'c' * 40}"),
        (BuiltFrom("", "archive", "", "e" * 40), "e" * 40, ""),
    ],
)
def test_bill_names_upstream_as_it_is_known(tmp_path: Path, upstream: BuiltFrom, version: str, address: str) -> None:
    made = sbom.bill("p", "1-turbo-2", upstream, {}, write_parts(tmp_path), EPOCH)
    (part,) = [item for item in json.loads(made)["components"] if item["name"] == "llama.cpp"]
    assert (part["version"], part["purl"]) == (version, f"pkg:github/ggml-org/llama.cpp{address}")


# The record, paths and platforms


def test_record_of_a_package_has_neither_times_nor_places() -> None:
    text = encode(portable_record(BUILT, NEEDS)).decode()
    made = json.loads(text)
    assert not [word for word in ("/home/me", "seconds", '"log"', "mtime", "123456789", "launcher") if word in text]
    assert made["outputs"] == [{"name": "llama-cli", "sha256": "ab" * 32, "bytes": 7}]
    assert made["needs"]["glibc"] == "2.34"
    assert (made["options"], made["variables"]) == ({"GGML_CUDA": "ON"}, {"CFLAGS": "-O2"})
    assert (made["schema"], made["version"], made["reports"]) == ("turbotool.package-record", 2, BUILT.reports)
    assert decode(text, PackageRecord, "here") == portable_record(BUILT, NEEDS)


def test_file_that_names_the_build_folder_is_named() -> None:
    files = {"bin/a": Member(b"\0/home/me/build/x.c\0"), "bin/b": Member(b"/usr/lib")}
    with pytest.raises(PackageError, match=r"bin/a names /home/me/build$"):
        package.refuse_paths(files, (Path("/home/me/build"),))


def test_package_is_built_in_a_folder_of_its_own_for_any_cpu_without_paths(tmp_path: Path) -> None:
    site = fake_site(tmp_path)
    site = site.asking(platform=replace(LINUX, system=host.system(), machines=(host.machine(),)))
    plan = site.plan()
    assert plan.folder.name == "cpu-linux-x64"
    assert plan.request.targets == PACKAGED
    wanted = {"GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON", "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON"}
    assert wanted.items() <= plan.options.items()
    assert plan.env["SOURCE_DATE_EPOCH"] == str(EPOCH)
    assert plan.env["CCACHE_BASEDIR"] == ""
    for variable in ("CFLAGS", "CXXFLAGS"):
        assert f"-ffile-prefix-map={site.layout.tree}=llama.cpp" in plan.env[variable]
    assert str(tmp_path) not in json.dumps(dict(plan.inputs)).replace(str(tmp_path / "tools"), "")


def test_cross_compilers_are_asked_for_unless_the_user_names_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbotool.build.platforms.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("turbotool.build.platforms.platform.system", lambda: "Linux")
    arm = find_platform("linux-arm64")
    assert arm.compilers({})["CXX"] == "aarch64-linux-gnu-g++"
    assert arm.compilers({"CC": "mine"}) == {"CC": "mine"}
    assert arm.options()["CMAKE_SYSTEM_PROCESSOR"] == "aarch64"
    assert "CMAKE_SYSTEM_PROCESSOR" not in find_platform(None).options()
    with pytest.raises(BackendUnavailable, match="macos-arm64 is built on Darwin"):
        find_platform("macos-arm64")
    with pytest.raises(UsageMistake, match="did you mean 'linux-arm64'"):
        find_platform("linux-arm")


@pytest.mark.parametrize("value", ["yesterday", "-1", "315532799"])
def test_time_that_no_archive_can_hold_is_refused(value: str) -> None:
    with pytest.raises(UsageMistake, match="SOURCE_DATE_EPOCH"):
        source_epoch({"SOURCE_DATE_EPOCH": value})


# The command


def test_signing_without_sigstore_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURBOTOOL_ROOT", str(tmp_path))
    monkeypatch.setattr(
        "turbotool.system.extras.importlib.util.find_spec", lambda name: None if name == "sigstore" else object()
    )
    done = typed(["package", "--sign", "--json"], capsys)
    assert done.code == ToolMissing.exit_code
    assert "--sign needs sigstore, which is not installed" in done.document["error"]["message"]
    assert "turbotool[sign]" in done.document["error"]["hint"]


@posix
def test_signature_is_written_beside_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # stands in for the library, which needs an identity and the network
    (tmp_path / "sigstore.py").write_text(
        "import pathlib, sys\nwords = sys.argv[1:]\nassert words[0] == 'sign'\n"
        "bundle = words[words.index('--bundle') + 1]\npathlib.Path(bundle).write_text(words[-1])\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    archive = tmp_path / "p.tar.gz"
    bundle = package.sign(archive, QUIET)
    assert (bundle.name, bundle.read_text(encoding="utf-8")) == ("p.tar.gz.sigstore.json", str(archive))


def test_missing_emulator_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURBOTOOL_ROOT", str(tmp_path))
    done = typed(["package", "--wrapper", "no-such-emulator -L /usr", "--json"], capsys)
    assert done.code == ToolMissing.exit_code
    assert "there is no no-such-emulator" in done.document["error"]["message"]
    assert done.document["error"]["hint"].endswith("or --no-verify")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-glibc", "two"], "'two' is no version of glibc"),
        (["--max-glibc", "2"], "'2' is no version of glibc"),
        (["--out", "file/packages"], "cannot write to "),
    ],
)
def test_what_was_named_is_looked_at_before_anything_is_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.setenv("TURBOTOOL_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("turbotool.release.package.collect", lambda *_: pytest.fail("it was built"))
    done = typed(["package", "--no-verify", *words, "--json"], capsys)
    assert (done.code, done.document["error"]["class"]) == (2, "UsageMistake")
    assert says in done.document["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def command_with(
    folder: Path, program: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Done:
    """`turbotool package` as far as the build is done, with a script in place of every program."""
    layout = Layout(folder / "root", folder / "work", folder / "cache")
    monkeypatch.setattr("turbotool.layout.find_layout", lambda: layout)
    commit(layout.tree, {"README.md": "A sentence of the documentation that is long enough to be prose.\n\n" * 100})
    made = fake_package(program)
    monkeypatch.setattr("turbotool.release.package.collect", lambda *_: made)
    model = write(folder, gguf())
    return typed(["package", "--model", str(model), "--check", "binaries-start", "--json"], capsys)


@posix
def test_archive_gets_its_name_once_it_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command_with(tmp_path, PROGRAM, monkeypatch, capsys)
    assert done.code == 0, done.stderr
    archive = tmp_path / "work" / "build" / "packages" / "llama-x.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (done.document["archive"], done.document["sha256"]) == (str(archive), digest)
    assert done.document["verified"]
    assert [(check["name"], check["ok"]) for check in done.document["checks"]] == [("binaries-start", True)]
    assert done.document["needs"]["manylinux"] == "manylinux_2_34_x86_64"
    assert archive.with_name("llama-x.tar.gz.sha256").read_text(encoding="utf-8") == f"{digest}  llama-x.tar.gz\n"
    assert {path.name for path in archive.parent.iterdir()} == {"llama-x.tar.gz", "llama-x.tar.gz.sha256"}


@posix
def test_archive_of_programs_that_fail_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command_with(tmp_path, PROGRAM.replace(b"ababababa", b"cdcdcdcdc"), monkeypatch, capsys)
    assert done.code == VerificationFailed.exit_code
    assert done.document["ok"] is False
    assert "binaries-start" in done.document["error"]["message"]
    assert list((tmp_path / "work" / "build" / "packages").iterdir()) == []
