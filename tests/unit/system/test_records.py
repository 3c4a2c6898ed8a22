"""Files that one run leaves for the next: what is written reads back, and damage is an error that names the field."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from turbotool.build.cmake import State
from turbotool.build.record import BuildRecord, Built, BuiltFrom, UsedTool
from turbotool.build.request import Asked
from turbotool.build.stamps import Stamps
from turbotool.errors import ArchiveError, DocumentError, LockError
from turbotool.pin.attempt import Attempt
from turbotool.pin.candidates import Found
from turbotool.release.record import portable_record
from turbotool.release.sharedlibs import Needs
from turbotool.series.repair import Repair
from turbotool.system.documents import as_builtins, decode, encode, kind_of
from turbotool.system.locks import Holder, describe_holder
from turbotool.upstream.journal import Bump, Export, Journal, Move
from turbotool.upstream.lock import Lock, LockedModel, PatchHash, SeriesLock, Upstream

BUILD = BuildRecord(
    key="a1",
    inputs={"tree": "b2"},
    backend="cpu",
    tree="b2",
    series="c3",
    lock=BuiltFrom("d4", "pypi"),
    reports="d4-turbo-b2",
    tools={"cmake": UsedTool("/usr/bin/cmake", "4.1", "cmake version 4.1"), "c": UsedTool("/usr/bin/cc", None, "")},
    options={"GGML_NATIVE": "ON"},
    targets=("llama-cli",),
    asked=Asked(False, ("86",), {"GGML_LTO": "ON"}, ("llama-imatrix",)),
    outputs=(Built("llama-cli", "e5", 7, 123456789),),
    links={"libggml.so": "libggml.so.0"},
    run_env={},
    notes=("left out: x",),
    seconds=1.5,
    log="../logs/build-cpu.log",
)
UPSTREAM = Upstream("git", "b2", commit="d4", url="https://example.org/llama.cpp", date="2026-10-01")
MODEL = LockedModel("pypi", "tiny", "1.0", "tiny-1.0.whl", "f6", 7, "tiny.gguf", "a7")
SAMPLES: tuple[Any, ...] = (
    BUILD,
    portable_record(BUILD, Needs(("libc.so.6",), (), "2.34", "manylinux_2_34_x86_64")),
    State({"source": "a"}, {"C": "cc 12"}, {"GGML_NATIVE": "ON"}),
    Stamps({"src/a.cpp": ("100644 blob a1", 123456789)}),
    Lock(UPSTREAM, SeriesLock("b2", "c3", (PatchHash("a.patch", "d4"),)), MODEL),
    Lock(UPSTREAM, SeriesLock("b2", "c3", ())),
    Journal(move=Move("a1", "b2")),
    Journal(export=Export("/somewhere", "a1")),
    Journal(bump=Bump("/a", "/a/root", "/a/tree")),
    Attempt("v2", "a1", "b2", ("a.patch",), None),
    Repair("repair-a1", 2, "b2", "c3", waiting=False),
    Found(UPSTREAM),
    Holder(12, "turbotool vendor", "2026-10-01 12:00:00", "vendor upstream"),
)
REQUIRED = [(sample, field.name) for sample in SAMPLES for field in fields(sample) if field.default is MISSING]


def name_of(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


def reading(document: dict[str, Any], sample: object) -> object:
    return decode(json.dumps(document), type(sample), "here")


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_what_is_written_reads_back(sample: object) -> None:
    assert decode(encode(sample), type(sample), "here") == sample


@pytest.mark.parametrize(("sample", "field"), REQUIRED, ids=name_of)
def test_a_field_that_is_missing_or_of_another_type_is_named(sample: object, field: str) -> None:
    document, error = as_builtins(sample), kind_of(sample).error
    with pytest.raises(error, match=f"`{field}`"):
        reading({name: value for name, value in document.items() if name != field}, sample)
    with pytest.raises(error, match=rf"`\$\.{field}`"):
        reading({**document, field: 7.5 if isinstance(document[field], int | str | list | dict) else [7]}, sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_another_document_and_another_version_are_refused(sample: object) -> None:
    document, kind = as_builtins(sample), kind_of(sample)
    with pytest.raises(kind.error, match=f"newer than {kind.version}") as caught:
        reading({**document, "version": kind.version + 1}, sample)
    assert caught.value.hint == "use the newer turbotool"
    with pytest.raises(kind.error, match=r"its schema is 'turbotool\.other'"):
        reading({**document, "schema": "turbotool.other"}, sample)


def test_each_document_has_the_error_of_its_room() -> None:
    errors = {kind_of(sample).name: kind_of(sample).error for sample in SAMPLES}
    others = {name: error for name, error in errors.items() if error is not DocumentError}
    assert others == {"lock": LockError, "package-record": ArchiveError}
    assert len(errors) == 10


def test_who_holds_a_lock_is_said_as_far_as_it_is_known(tmp_path: Path) -> None:
    holder = Holder(12, "turbotool vendor", "2026-10-01 12:00:00", "vendor upstream")
    for text, said in (
        (encode(holder).decode(), "pid 12 (turbotool vendor) holds it since 2026-10-01 12:00:00 to vendor upstream"),
        ("{", "another turbotool process holds it"),
        (json.dumps({**as_builtins(holder), "pid": "12"}), "another turbotool process holds it"),
        (json.dumps({**as_builtins(holder), "version": 2}), "another turbotool process holds it"),
    ):
        (tmp_path / "lock.json").write_text(text)
        assert describe_holder(tmp_path / "lock") == said
    assert describe_holder(tmp_path / "none") == "another turbotool process holds it"


def test_a_name_that_is_no_utf8_is_written_as_utf8_and_reads_back_the_same() -> None:
    stamps = Stamps({"caf\udce9": ("é", 1)})
    written = encode(stamps)
    assert "é" in written.decode("utf-8")
    assert decode(written, Stamps, "here") == stamps


def test_a_field_whose_name_is_no_text_is_an_error_of_the_document() -> None:
    damaged = json.dumps({"schema": "turbotool.stamps", "version": 1, "files": {}, "\ud800": 1})
    with pytest.raises(DocumentError, match="a field's name is no text"):
        decode(damaged, Stamps, "here")


def test_help_and_the_modules_of_git_load_none_of_the_libraries_that_records_need() -> None:
    code = (
        "import sys, turbotool.series.classify, turbotool.system.git\n"
        "from turbotool.cli.main import run\n"
        "for words in (['--help'], ['build', '--help'], ['patch', 'continue', '--help'], ['doctor', '--help']):\n"
        "    try:\n"
        "        run(words)\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, words\n"
        "sys.exit(', '.join({'git', 'msgspec', 'tomlkit'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
