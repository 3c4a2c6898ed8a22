"""Archives are hostile until proven otherwise."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turbotool.errors import ArchiveError
from turbotool.system.archive import Limits, read_member, unpack


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_only_the_subfolder_is_unpacked_with_modes_and_without_git(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tar.gz",
        (member("top/other.txt"), b"no"),
        (member("top/src/.git"), b"gitdir: elsewhere"),
        (member("top/src/sub/.GIT/config"), b"[core]"),
        (member("top/src/run.sh", mode=0o775), b"#!"),
        (member("top/src/a/b.c", mode=0o600), b"int"),
        (member("top/src/link", tarfile.SYMTYPE, "a/b.c"), b""),
        (member("top/src/hard.c", tarfile.LNKTYPE, "top/src/a/b.c"), b""),
    )
    unpack(archive, tmp_path / "to", subdir="top/src")
    assert names(tmp_path / "to") == {"run.sh", "a/b.c", "link", "hard.c"}
    assert stat.S_IMODE((tmp_path / "to/run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "to/a/b.c").stat().st_mode) == 0o644
    assert (tmp_path / "to/hard.c").read_bytes() == b"int"


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (member("../out.txt"), "escapes"),
        (member("a/../../out.txt"), "escapes"),
        (member("/out.txt"), "not a relative path"),
        (member("a\\..\\out.txt"), "not a relative path"),
        (member("c:out.txt"), "not a relative path"),
        (member("l", tarfile.SYMTYPE, "/etc/passwd"), "leads out"),
        (member("l", tarfile.SYMTYPE, "../../out.txt"), "leads out"),
        (member("h", tarfile.LNKTYPE, "../out.txt"), "escapes"),
        (member("h", tarfile.LNKTYPE, "missing"), "no unpacked file"),
        (member("d", tarfile.CHRTYPE), "neither file"),
        (member("p", tarfile.FIFOTYPE), "neither file"),
        (member("good.txt"), "collides"),
        (member("GOOD.txt"), "collides"),
        (member("good.txt/x"), "collides"),
    ],
)
def test_a_hostile_member_is_refused_by_name(tmp_path: Path, hostile: tarfile.TarInfo, said: str) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", (member("good.txt"), b"good"), (hostile, b""))
    with pytest.raises(ArchiveError, match=said) as caught:
        unpack(archive, tmp_path / "in/to")
    assert repr(hostile.name) in caught.value.message or hostile.linkname in caught.value.message
    assert not (tmp_path / "out.txt").exists()
    assert not (tmp_path / "in/out.txt").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = member("dir", tarfile.SYMTYPE, "../outside")
    archive = tar_of(tmp_path / "a.tar.gz", (link, b""), (member("dir/evil.txt"), b"evil"))
    with pytest.raises(ArchiveError, match="collides"):
        unpack(archive, tmp_path / "to")
    assert not list((tmp_path / "outside").iterdir())


def test_two_links_that_only_together_lead_out_are_refused(tmp_path: Path) -> None:
    first, second = member("a/b/up", tarfile.SYMTYPE, ".."), member("a/b/out", tarfile.SYMTYPE, "up/../../x")
    archive = tar_of(tmp_path / "a.tar.gz", (first, b""), (second, b""))
    with pytest.raises(ArchiveError, match="leads out"):
        unpack(archive, tmp_path / "to")


def test_a_bomb_stops_at_the_limit_and_not_at_the_disk(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.tar.gz"
    with gzip.open(archive, "wb") as stream:
        for _ in range(40):
            stream.write(bytes(1 << 20))
    started = time.monotonic()
    with pytest.raises(ArchiveError, match="120 times its size"):
        unpack(archive, tmp_path / "to")
    assert time.monotonic() - started < 5


def test_limits_count_bytes_read_and_members(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", *((member(f"f{number}"), b"x" * 1000) for number in range(9)))
    with pytest.raises(ArchiveError, match="more than 5 members"):
        unpack(archive, tmp_path / "a", limits=Limits(members=5))
    with pytest.raises(ArchiveError, match="over 4000 bytes"):
        unpack(archive, tmp_path / "b", limits=Limits(total=4000))


def test_a_huge_name_record_is_not_read_into_memory(tmp_path: Path) -> None:
    header = bytearray(member("././@LongLink", tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"77777777777\0"  # eight gigabytes of name
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(ArchiveError, match="claims"):
        unpack(tmp_path / "a.tar", tmp_path / "to")


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", (member("a"), b"1" * 512), (member("b"), b"2" * 512), (member("c"), b"3"))
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[1024:1034] = b"\xff" * 10
    (tmp_path / "a.tar").write_bytes(bytes(data))
    with pytest.raises(ArchiveError, match="damaged header follows member 1"):
        unpack(tmp_path / "a.tar", tmp_path / "to")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), where=st.integers(0, 10_000), noise=st.binary(min_size=1, max_size=8))
def test_truncated_or_damaged_archives_give_an_archive_error_or_the_content(
    tmp_path_factory: pytest.TempPathFactory, cut: float, where: int, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = tar_of(
        folder / "a.tar.gz", (member("a"), bytes(range(256)) * 40), (member("b/c"), b"text" * 99)
    ).read_bytes()
    (folder / "cut.tar.gz").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(ArchiveError):
        unpack(folder / "cut.tar.gz", folder / "one")
    at = where % len(whole)
    (folder / "noisy.tar.gz").write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    try:
        unpack(folder / "noisy.tar.gz", folder / "two")
    except ArchiveError:
        return
    assert (folder / "two/b/c").read_bytes() == b"text" * 99


def test_zip_is_unpacked_by_the_same_rules(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.zip", "w", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo("top/run.sh")
        info.external_attr = (stat.S_IFREG | 0o755) << 16
        file.writestr(info, "#!")
        file.writestr("top/a.txt", "a")
    unpack(tmp_path / "good.zip", tmp_path / "good", subdir="top")
    assert names(tmp_path / "good") == {"run.sh", "a.txt"}
    assert (tmp_path / "good/run.sh").stat().st_mode & 0o100
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../out.txt", "evil")
    with pytest.raises(ArchiveError, match="escapes"):
        unpack(tmp_path / "bad.zip", tmp_path / "bad")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(40 << 20))
    with pytest.raises(ArchiveError, match="times its size"):
        unpack(tmp_path / "bomb.zip", tmp_path / "bomb")


def test_a_missing_folder_and_a_missing_member_are_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", (member("a"), b"1"))
    with pytest.raises(ArchiveError, match="no folder 'vendor/x'"):
        unpack(archive, tmp_path / "to", subdir="vendor/x")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr("pkg/model.gguf", b"GGUF" * 10)
    read_member(tmp_path / "a.whl", "pkg/model.gguf", tmp_path / "m", limit=40)
    assert (tmp_path / "m").read_bytes() == b"GGUF" * 10
    with pytest.raises(ArchiveError, match="'pkg/none'"):
        read_member(tmp_path / "a.whl", "pkg/none", tmp_path / "m", limit=40)
    with pytest.raises(ArchiveError, match="over 39 bytes"):
        read_member(tmp_path / "a.whl", "pkg/model.gguf", tmp_path / "m", limit=39)
