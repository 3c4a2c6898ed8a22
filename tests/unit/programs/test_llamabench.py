"""One llama-bench process: what it is asked, what of its output counts, and which results are refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_tools import bench_runs, llama_bench, python_program
from hypothesis import given
from hypothesis import strategies as st
from known_model import known_model
from recordings import DATA

from turbotool.errors import BinaryFailed, ConfigurationMismatch, ToolFailed
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED
from turbotool.programs import llamabench
from turbotool.programs.binaries import Binaries
from turbotool.programs.llamabench import BenchPoint, Phase, Sample
from turbotool.programs.runner import Runner

OUTPUT = (DATA / "llama-bench.jsonl").read_bytes()
LINES = OUTPUT.splitlines(keepends=True)
RAN = BenchPoint(CachePair("q8_0", "turbo4"), 32, 1)
PROMPT, GENERATED = Phase("pp", 16), Phase("tg", 4)
MODEL = known_model("/models/m.gguf")

scripts = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def text(data: bytes) -> str:
    return data.decode(errors="replace")


def runner_in(folder: Path) -> Runner:
    return Runner(Binaries(folder), folder, 2, timed=True)


def altered(**fields: Any) -> str:
    return json.dumps({**json.loads(LINES[0]), **fields}) + "\n"


def test_real_output_is_read() -> None:
    prompt, generated = llamabench.parse_records("load_backend: noise\n" + text(OUTPUT))
    assert (prompt.k, prompt.v, prompt.depth, prompt.threads, prompt.flash) == ("q8_0", "turbo4", 32, 1, 1)
    assert (prompt.n_prompt, prompt.n_gen, generated.n_prompt, generated.n_gen) == (16, 0, 0, 4)
    assert (prompt.ns, generated.ns) == ((99099325,), (49983626,))


def test_speeds_agree_with_those_that_llama_bench_prints() -> None:
    for line, tokens in zip(LINES, (16, 4), strict=True):
        (record,) = llamabench.parse_records(text(line))
        sample = Sample(tokens, record.ns[0])
        assert sample.tokens_per_second == pytest.approx(json.loads(line)["avg_ts"])
        assert sample.ms_per_token * sample.tokens_per_second == pytest.approx(1000)


@given(st.sampled_from(LINES), st.data())
def test_a_line_cut_at_any_byte_is_no_record(line: bytes, data: st.DataObject) -> None:
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    assert llamabench.parse_records(text(cut)) == ()
    if len(cut) < len(line) - 1:
        assert llamabench.parse_records(text(cut) + "\n") == ()
        assert len(llamabench.parse_records(text(cut + b"\n" + line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "{" * 100_000 + "\n",
        '{"a": ' + "[" * 100_000 + "\n",
        "{}\n",
        altered(samples_ns=[0]),
        altered(samples_ns=["1"]),
        altered(samples_ns=1),
        altered(n_depth="32"),
        altered(type_k=None),
    ],
)
def test_what_is_not_a_record_is_passed_over(line: str) -> None:
    assert llamabench.parse_records(line) == ()
    assert len(llamabench.parse_records(line + text(OUTPUT))) == 2


def test_flash_attention_may_be_reported_as_older_versions_do() -> None:
    (record,) = llamabench.parse_records(altered(flash_attn=True))
    assert record.flash == llamabench.FLASH_ON


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type_k": "f16"}, "K cache type is f16, requested q8_0"),
        ({"type_v": "q8_0"}, "V cache type is q8_0, requested turbo4"),
        ({"n_threads": 2}, "number of threads is 2, requested 1"),
        ({"n_depth": 0}, "depth is 0, requested 32"),
        ({"flash_attn": 0}, "flash attention is 0, requested 1"),
        ({"flash_attn": -1}, "flash attention is -1, requested 1"),
        ({"build_commit": "731c9eb"}, "commit is 731c9eb, requested 0c1e57098-turbo-7ba7d7182"),
        ({"model_filename": "other.gguf"}, "model is other.gguf, requested SmolLM2"),
        ({"samples_ns": [1, 2]}, "number of repetitions is 2, requested 1"),
    ],
)
def test_a_record_of_anything_else_is_refused(fields: dict[str, Any], says: str) -> None:
    model, commit = Path("SmolLM2-135M-Instruct.Q4_1.gguf"), "0c1e57098-turbo-7ba7d7182"
    llamabench.require(llamabench.parse_records(text(OUTPUT)), model, RAN, commit)
    with pytest.raises(ConfigurationMismatch, match=says):
        llamabench.require(llamabench.parse_records(altered(**fields)), model, RAN, commit)


@scripts
def test_one_process_times_both_phases_once(tmp_path: Path) -> None:
    llama_bench(tmp_path / "bin")
    timing = llamabench.measure(runner_in(tmp_path / "bin"), MODEL, RAN, (PROMPT, GENERATED))
    assert timing.samples == {PROMPT: Sample(16, 16_000_000), GENERATED: Sample(4, 4 * (10_000_000 + 32 * 1000))}
    (asked,) = bench_runs(tmp_path)
    wanted = {"-r": "1", "-p": "16", "-n": "4", "-d": "32", "-t": "1", "-fa": "on", "-ctk": "q8_0", "-ctv": "turbo4"}
    assert wanted.items() <= asked.items()


@scripts
def test_a_phase_that_is_left_out_is_not_run(tmp_path: Path) -> None:
    llama_bench(tmp_path / "bin")
    timing = llamabench.measure(runner_in(tmp_path / "bin"), MODEL, RAN, (GENERATED,))
    assert list(timing.samples) == [GENERATED]
    assert bench_runs(tmp_path)[0]["-p"] == "0"


@scripts
def test_both_builds_run_without_upstreams_rotation_and_without_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ATTN_ROT_K_OVERRIDE", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    llama_bench(tmp_path / "bin")
    llamabench.measure(runner_in(tmp_path / "bin"), MODEL, RAN, (GENERATED,))
    (ran,) = bench_runs(tmp_path)
    assert ran["env"] == {"LLAMA_ATTN_ROT_DISABLE": "1", "LLAMA_ARG_KV_CALIBRATION": "off"}
    assert ran["kept"] == str(tmp_path / "bin" / "llama-cache")
    llamabench.measure(runner_in(tmp_path / "bin"), MODEL, replace(RAN, calibration=AUTO), (GENERATED,))
    assert bench_runs(tmp_path)[1]["env"]["LLAMA_ARG_KV_CALIBRATION"] == "auto"


@scripts
def test_a_build_that_does_not_calibrate_as_it_was_asked_to_is_refused(tmp_path: Path) -> None:
    runner = runner_in(llama_bench(tmp_path / "bin"))
    (found,) = llamabench.calibrated(runner, MODEL, RAN.pair, AUTO)
    assert (found.on, found.hash, found.layers) == (True, "00000000000000ab", 2)
    (found,) = llamabench.calibrated(runner, MODEL, RAN.pair, UNCALIBRATED)
    assert not found.on
    llama_bench(tmp_path / "bin", trouble={"q8_0": "unmeasured"})
    with pytest.raises(ConfigurationMismatch, match=r"q8_0/turbo4: the cache is not calibrated \(not measured\)"):
        llamabench.calibrated(runner, MODEL, RAN.pair, AUTO)


@scripts
@pytest.mark.parametrize(
    ("trouble", "error", "says"),
    [
        ("SIGSEGV", BinaryFailed, "signal SIGSEGV\nabout to crash"),
        ("silent", BinaryFailed, "reported no pp16 and no tg4"),
        ("config", ConfigurationMismatch, "K cache type is f16, requested q8_0"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, trouble: str, error: type[Exception], says: str) -> None:
    llama_bench(tmp_path / "bin", trouble={"q8_0@32": trouble})
    with pytest.raises(error, match=says):
        llamabench.measure(runner_in(tmp_path / "bin"), MODEL, RAN, (PROMPT, GENERATED))
    shallow = llamabench.measure(runner_in(tmp_path / "bin"), MODEL, replace(RAN, depth=0), (PROMPT,))
    assert shallow.samples[PROMPT].tokens_per_second == 1000


@scripts
def test_another_commit_than_before_is_refused(tmp_path: Path) -> None:
    llama_bench(tmp_path / "bin", commit="abc")
    with pytest.raises(ConfigurationMismatch, match="commit is abc, requested def"):
        llamabench.measure(runner_in(tmp_path / "bin"), MODEL, RAN, (PROMPT,), commit="def")


@scripts
def test_a_run_that_hangs_is_ended(tmp_path: Path) -> None:
    python_program(tmp_path / "llama-bench", "time.sleep(60)")
    with pytest.raises(ToolFailed, match="did not end within"):
        llamabench.measure(runner_in(tmp_path), MODEL, RAN, (PROMPT,), timeout=0.3)


@scripts
def test_a_build_is_asked_which_types_it_takes(tmp_path: Path) -> None:
    stock = runner_in(llama_bench(tmp_path / "stock", types=["f16", "q8_0"]))
    assert [llamabench.takes(stock, name) for name in ("q8_0", "turbo4")] == [True, False]
    assert bench_runs(tmp_path) == []
    python_program(tmp_path / "broken" / "llama-bench", "sys.exit('cannot open shared object file')")
    with pytest.raises(BinaryFailed, match="shared object"):
        llamabench.takes(runner_in(tmp_path / "broken"), "q8_0")
