"""Which device a build's programs use, and what the checks of devices make of what they print."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tools import python_program
from known_model import known_model

from turbotool.layout import Layout
from turbotool.programs.binaries import Binaries
from turbotool.programs.choose import choose_binaries, named_binaries
from turbotool.programs.devices import FIRST_VULKAN, on_a_device
from turbotool.programs.perplexity import Text
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.verify.check import Context
from turbotool.verify.checks.devices import device_driver, turbo_devices
from turbotool.verify.checks.upstream import backend_ops

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

QUIET = Output(quiet=True)
LIST = "print('Available devices:'); "
GPU = LIST + "print('  Vulkan0: AMD Radeon RX 7900 (RADV) (16384 MiB, 16000 MiB free)')"
ONLY_A_CPU = (
    LIST
    + "print('  Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits) (2048 MiB, 2048 MiB free)'"
    + " if os.environ.get('GGML_VK_VISIBLE_DEVICES') == '0' else '  (none)')"
)
NOTHING = LIST + "print('  (none)')"
PASSED = "  FLASH_ATTN_EXT(hsk=64,type_K=f16,type_V=f16): \\033[1;32mOK\\033[0m"


def vulkan(folder: Path, **programs: str) -> Binaries:
    """A build for Vulkan whose programs are the given Python code; underscores of the names are dashes."""
    for name, body in programs.items():
        python_program(folder / name.replace("_", "-"), body)
    return Binaries(folder, backend="vulkan")


def context_of(binaries: Binaries) -> Context:
    runner = Runner(binaries, binaries.bin_dir, 1)
    return Context(runner, known_model(), Text(binaries.bin_dir / "text.txt"), QUIET, quick=False)


def test_a_gpu_is_used_as_upstream_finds_it(tmp_path: Path) -> None:
    assert on_a_device(vulkan(tmp_path, llama_cli=GPU), QUIET).env == ()


def test_a_device_that_is_the_cpu_is_used_only_without_another_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = on_a_device(vulkan(tmp_path, llama_cli=ONLY_A_CPU), Output())
    assert chosen.env == FIRST_VULKAN
    assert "llvmpipe" in capsys.readouterr().err
    assert Runner(chosen, tmp_path, 1).environment({})["GGML_VK_VISIBLE_DEVICES"] == "0"


def test_without_any_device_the_programs_run_as_they_are(tmp_path: Path) -> None:
    binaries = vulkan(tmp_path, llama_cli=NOTHING)
    assert on_a_device(binaries, QUIET) == binaries
    assert on_a_device(replace(binaries, backend="cpu"), QUIET).env == ()


@pytest.mark.parametrize(
    ("recorded", "backend"),
    [
        ('{"backend": "cuda"}', "cuda"),
        ('{"schema": 1, "backend": "cuda"}', "cuda"),
        ('{"schema": "turbotool.package-record", "version": 9, "backend": "cuda"}', "cuda"),
        ('{"backend": "abacus"}', "cpu"),
        ('{"backend": ["cuda"]}', "cpu"),
        ("{", "cpu"),
        ("[]", "cpu"),
        (None, "cpu"),
    ],
)
def test_a_folder_of_programs_is_tested_as_what_it_was_built_for(
    tmp_path: Path, recorded: str | None, backend: str
) -> None:
    (tmp_path / "bin").mkdir()
    if recorded:
        (tmp_path / "build.json").write_text(recorded)
    assert named_binaries(tmp_path / "bin").backend == backend


def test_a_driver_that_crashes_with_f16_is_named_as_the_fault(tmp_path: Path) -> None:
    crash = "os.kill(os.getpid(), signal.SIGSEGV)"
    outcome = device_driver(context_of(vulkan(tmp_path, llama_cli=GPU, test_backend_ops=crash)))
    assert not outcome.ok
    assert not outcome.skipped
    assert "signal SIGSEGV on Vulkan0: AMD Radeon RX 7900 (RADV): a defect of this driver" in outcome.detail


def test_a_driver_that_runs_f16_passes_and_none_at_all_is_skipped(tmp_path: Path) -> None:
    binaries = vulkan(tmp_path, llama_cli=GPU, test_backend_ops=f"print('{PASSED}')")
    assert device_driver(context_of(binaries)).ok
    assert device_driver(context_of(vulkan(tmp_path, llama_cli=NOTHING))).skipped
    assert device_driver(context_of(replace(binaries, backend="cpu"))).skipped


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("ok: Vulkan0 turbo2 SET_ROWS i32 of f32: 0 of 9 blocks differ, 0 bytes", "ok"),
        ("ok: Vulkan0 turbo2 CPY\nFAILED: Vulkan0 turbo3 CPY of f32: 9 of 9 blocks differ", "failed"),
        ("unsupported: CUDA0 turbo2 SET_ROWS i32 of f32", "failed"),
        ("no device", "skipped"),
        ("", "failed"),
    ],
)
def test_devices_pass_only_where_something_was_compared(tmp_path: Path, printed: str, state: str) -> None:
    outcome = turbo_devices(context_of(vulkan(tmp_path, test_turbo_backend=f"print({printed!r})")))
    assert ("skipped" if outcome.skipped else "ok" if outcome.ok else "failed") == state


def test_an_operation_that_a_device_lacks_is_told_and_nothing_else_praised(tmp_path: Path) -> None:
    lacking = "unsupported: CUDA0 turbo2 CPY\nunsupported: CUDA0 turbo3 CPY"
    outcome = turbo_devices(context_of(vulkan(tmp_path, test_turbo_backend=f"print({lacking!r})")))
    assert (outcome.ok, outcome.detail) == (False, "no operation was compared")
    assert outcome.left_out == "2 operations that a device does not support, first CUDA0 turbo2 CPY"


def test_a_folder_built_for_another_backend_is_taken_as_that_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "build.json").write_text('{"backend": "cuda"}')
    layout = Layout(tmp_path, tmp_path, tmp_path)
    assert choose_binaries(Session(layout, Output()), "cpu", tmp_path / "bin").backend == "cuda"
    assert "bin was built for cuda, and so it is taken" in capsys.readouterr().err


def test_no_device_after_a_crash_is_no_skip(tmp_path: Path) -> None:
    outcome = turbo_devices(context_of(vulkan(tmp_path, test_turbo_backend="print('no device'); sys.exit(3)")))
    assert (outcome.ok, outcome.skipped) == (False, False)


def test_backend_ops_asks_for_the_device_and_samples_one_that_is_the_cpu(tmp_path: Path) -> None:
    binaries = vulkan(tmp_path, test_backend_ops="print(*sys.argv[1:]); print('Backend 1/2: Vulkan0')")
    log = tmp_path / "verify.log"
    left_out = []
    for env in ((), FIRST_VULKAN):
        context = context_of(replace(binaries, env=env))
        left_out.append(backend_ops(replace(context, runner=replace(context.runner, log=log))).left_out)
    assert left_out[0] == ""
    assert "MUL_MAT and FLASH_ATTN_EXT" in left_out[1]
    whole, *sampled = [line for line in log.read_text().splitlines() if line.startswith("test -o")]
    assert whole.startswith("test -o CPY,GET_ROWS,SET_ROWS,MUL_MAT,FLASH_ATTN_EXT ")
    assert [line.split()[2] for line in sampled] == ["CPY,GET_ROWS,SET_ROWS", "MUL_MAT", "FLASH_ATTN_EXT"]
    assert all(line.endswith("-b Vulkan0") for line in (whole, *sampled))
