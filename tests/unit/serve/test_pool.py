"""The memory that a server may take, and the build that it is served with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_tools import fake_site, python_program

from turbotool.errors import UsageMistake
from turbotool.programs.binaries import Binaries
from turbotool.serve import pool
from turbotool.serve.pool import Pool, find_pool
from turbotool.serve.run import built_backend
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

DEVICES = """
print("Available devices:")
print("  CUDA0: A GPU (24576 MiB, 20000 MiB free)")
print("  CUDA1: A GPU (24576 MiB, 1000 MiB free)")
"""


def on_a_gpu(folder: Path, body: str = DEVICES) -> Binaries:
    python_program(folder / "llama-cli", body)
    return Binaries(folder, backend="cuda")


def test_main_memory_is_what_is_free_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_free", lambda: 5 << 30)
    assert find_pool(Binaries(Path()), None) == Pool(5 << 30, "free")


def test_what_is_named_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_free", lambda: 5 << 30)
    assert find_pool(Binaries(Path()), 7 << 30).total == 7 << 30


def test_a_system_that_does_not_say_what_is_free_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_free", lambda: None)
    with pytest.raises(UsageMistake, match="does not say how much memory is free"):
        find_pool(Binaries(Path()), None)


def test_devices_have_the_memory_that_is_free_on_all_of_them(tmp_path: Path) -> None:
    found = find_pool(on_a_gpu(tmp_path), None)
    assert (found.total, found.main) == (21000 << 20, False)
    assert found.about == "free on CUDA0: A GPU, CUDA1: A GPU"


def test_programs_for_a_gpu_without_one_run_in_main_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_free", lambda: 5 << 30)
    assert find_pool(on_a_gpu(tmp_path, "print('none')"), None) == Pool(5 << 30, "free")


def test_the_build_of_a_gpu_is_taken_before_that_of_the_cpu(tmp_path: Path) -> None:
    site = fake_site(tmp_path)
    session = Session(site.layout, Output(quiet=True))
    assert built_backend(session) == "cpu"
    site.build()
    assert built_backend(session) == "cpu"
    made = site.layout.build("cpu") / "build.json"
    site.layout.build("vulkan").mkdir(parents=True)
    (site.layout.build("vulkan") / "build.json").write_bytes(made.read_bytes())
    assert built_backend(session) == "vulkan"
