"""A package whose programs are scripts, as it stands before it is written, and the record of the build in it."""

from __future__ import annotations

import json

from turbotool.build.platforms import PLATFORMS
from turbotool.build.record import BuildRecord, Built, BuiltFrom, UsedTool
from turbotool.build.request import Asked
from turbotool.build.targets import PACKAGED
from turbotool.release.pack import Member, with_sums
from turbotool.release.package import Package
from turbotool.release.record import portable_record
from turbotool.release.sharedlibs import Needs
from turbotool.system.documents import as_builtins

LINUX = PLATFORMS["linux-x64"]
EPOCH = 315532800
TREE = "ab" * 20
PROGRAM = b"#!/bin/sh\necho 'version: 1 (commit 0c1e57098-turbo-ababababa)'\n"
BUILT = BuildRecord(
    key="key",
    inputs={"C compiler": "/home/me/cc (cc 12)", "variable CFLAGS": "-O2"},
    backend="cpu",
    tree=TREE,
    series="cd" * 32,
    lock=BuiltFrom("ef" * 20, "pypi"),
    reports="0c1e57098-turbo-ababababa",
    tools={
        name: UsedTool(f"/home/me/.venv/bin/{name}", "4.1", f"{name} version 4.1") for name in ("cmake", "launcher")
    },
    options={"GGML_CUDA": "ON", "CMAKE_CUDA_COMPILER": "/home/me/nvcc"},
    targets=PACKAGED,
    asked=Asked(True, (), {}, ()),
    outputs=(Built("llama-cli", "ab" * 32, 7, 123456789),),
    links={"a": "b"},
    run_env={},
    notes=(),
    seconds=9.5,
    log="../x",
)
NEEDS = Needs(("libc.so.6",), (), "2.34", "manylinux_2_34_x86_64")


def record_of(**changes: object) -> bytes:
    return json.dumps({**as_builtins(portable_record(BUILT, NEEDS)), **changes}).encode()


def fake_package(program: bytes = PROGRAM) -> Package:
    """The package of a build for any CPU, with a script in place of every program."""
    files = {f"bin/{name}": Member(program, executable=True) for name in PACKAGED}
    files["build.json"] = Member(record_of())
    return Package("llama-x", LINUX, "cpu", TREE, with_sums(files), NEEDS, EPOCH)
