"""What the programs print, read back: recorded from real runs, and cut at every place."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_model import known_model
from recordings import recorded

from turbotool.errors import BinaryFailed, ConfigurationMismatch, UnknownCacheType
from turbotool.kv.cachetype import CachePair, bits_per_value, row_bytes
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration
from turbotool.kv.effective import Cache, Calibrated, Rotation, parse_effective, require_effective, uncalibrated
from turbotool.kv.rotation import BOTH, DISABLE, K_OVERRIDE, OFF, Knobs, gate_is_on, turbo_size
from turbotool.programs import perplexity
from turbotool.programs.completion import parse_answer, parse_completion, parse_tokens
from turbotool.programs.divergence import (
    Estimate,
    Running,
    parse_chunks,
    parse_divergence,
    parse_final,
    parse_running,
    parse_too_short,
)
from turbotool.verify.checks.upstream import count_turbo, parse_cases

COMPLETION = recorded("completion.log")
KLD = recorded("kld.log")
KLD_TURBO = recorded("kld-q8_0-turbo4.log")
TOO_SHORT = recorded("too-short.log")
PPL = recorded("ppl.log")
CHAT = recorded("chat.log")
OPS = recorded("backend-ops.log")
MODEL = known_model()
RAN = CachePair("q8_0", "turbo4")
K_ONLY = Knobs(k=True)


PRINTED = re.compile(r"-?\d+(?:\.\d+)?")


def numbers(value: object) -> set[float]:
    """Every number in a record, at whatever depth."""
    if is_dataclass(value):
        return set().union(*(numbers(getattr(value, field.name)) for field in fields(value)))
    return set().union(*map(numbers, value)) if isinstance(value, tuple) else {float(str(value))}


def test_the_effective_configuration_is_read_from_a_real_log() -> None:
    found = parse_effective(COMPLETION)
    assert found.caches == (Cache(512, 30, 1, 4.48, "q8_0", 2.99, "turbo4", 1.49),)
    assert found.buffers == (("CPU", 4.48),)
    assert (found.flash_attn, found.n_ctx) == ("enabled", 512)
    assert found.attn_k == Rotation(True, 64, "q8_0", K_OVERRIDE)
    assert found.attn_v == Rotation(False, None, "turbo4", "default")
    assert found.turbo_k == Rotation(False, None, "q8_0", None)
    assert found.turbo_v == Rotation(True, 64, "turbo4", None)


def context_log(cells: int) -> str:
    """What a model with windows logs where its two caches have as many cells and layers."""
    buffer = "x I llama_kv_cache:        CPU KV buffer size =     2.00 MiB\n"
    size = f"x I llama_kv_cache: size =    2.00 MiB ({cells:6d} cells,   4 layers,  1/1 seqs), "
    size += "K (f16):    1.00 MiB, V (f16):    1.00 MiB\n"
    return f"x I llama_context: n_ctx                 = {cells}\n" + 2 * (buffer + size)


def test_two_caches_of_one_size_are_two_and_those_of_an_earlier_context_are_gone() -> None:
    found = parse_effective(context_log(256) + context_log(512))
    assert [cache.cells for cache in found.caches] == [512, 512]
    assert found.buffers == (("CPU", 2.0), ("CPU", 2.0))


def test_sequences_that_share_a_cache_are_one_stream() -> None:
    """Upstream prints how many sequences there may be, then how many streams there are."""
    (found,) = parse_effective(COMPLETION.replace("1/1 seqs", "4/1 seqs")).caches
    assert found.streams == 1


def test_the_reason_of_an_ignored_override_is_kept_whole() -> None:
    reason = "LLAMA_ATTN_ROT_V_OVERRIDE ignored: cache type f16 is not quantized"
    found = parse_effective(f"x I llama_kv_cache: attn_rot_v: off, type f16 ({reason})\n").attn_v
    assert found is not None
    assert found.reason == reason


OURS = "llama_kv_cache: attn_rot_k: on, size 64, type q8_0 (LLAMA_ATTN_ROT_K_OVERRIDE)\n"


@pytest.mark.parametrize(
    ("upstream", "on", "size"),
    [
        ("attn_rot_k = 0, n_embd_head_k_all = 64", False, None),
        ("n_rot_k = 0, n_embd_head_k_all = 64", False, None),
        ("n_rot_k = 128, n_embd_head_k_all = 128", True, 128),
    ],
)
def test_a_line_of_ours_that_contradicts_the_variable_of_the_graph_is_not_believed(
    upstream: str, on: bool, size: int | None
) -> None:
    assert parse_effective(f"{OURS}llama_kv_cache: {upstream}\n").attn_k == Rotation(on, size, None, None)


@pytest.mark.parametrize("upstream", ["attn_rot_k = 1, n_embd_head_k_all = 64", "n_rot_k = 64, n_embd_head_k_all = 64"])
def test_a_line_of_upstream_that_agrees_leaves_ours_with_its_reason(upstream: str) -> None:
    found = parse_effective(f"{OURS}llama_kv_cache: {upstream}\n").attn_k
    assert found == Rotation(True, 64, "q8_0", "LLAMA_ATTN_ROT_K_OVERRIDE")


def test_a_head_size_that_differs_between_layers_is_read() -> None:
    found = parse_effective("llama_kv_cache: n_rot_v = 0, n_embd_head_k_all = -1\n").attn_v
    assert found == Rotation(False, None, None, None)


def test_what_was_asked_for_passes() -> None:
    require_effective(RAN, K_ONLY, MODEL, parse_effective(COMPLETION))


@pytest.mark.parametrize(
    ("pair", "knobs", "says"),
    [
        (CachePair("f16", "turbo4"), K_ONLY, "K cache type is q8_0"),
        (CachePair("q8_0", "turbo3"), K_ONLY, "V cache type is turbo4"),
        (RAN, OFF, "attn_rot_k is on"),
        (RAN, BOTH, "attn_rot_v is off"),
        (RAN, Knobs(disable=True, k=True), "attn_rot_k is on"),
    ],
)
def test_a_run_with_another_configuration_is_refused(pair: CachePair, knobs: Knobs, says: str) -> None:
    with pytest.raises(ConfigurationMismatch, match=says):
        require_effective(pair, knobs, MODEL, parse_effective(COMPLETION))


def test_a_turbo_rotation_of_another_width_is_refused() -> None:
    log = COMPLETION.replace("turbo_rot_v: on, size 64", "turbo_rot_v: on, size 32")
    with pytest.raises(ConfigurationMismatch, match="size 32, expected 64"):
        require_effective(RAN, K_ONLY, MODEL, parse_effective(log))


def test_a_silent_log_is_refused() -> None:
    with pytest.raises(ConfigurationMismatch, match="names no KV cache"):
        require_effective(RAN, OFF, MODEL, parse_effective(""))


WHERE = "measured on 256 tokens in 0.57 s, kept in /home/me/.cache/llama cpp/kv-calibration/89bb8e6452fa241e.gguf"
ON = "x I kv_calibration: on, K q8_0, 30 layers, hash f7adf4722e6adc83, for 512 positions ({})\n"
NOT = "x I kv_calibration: off, K q8_0 ({})\n"
CALIBRATED = Calibrated(True, "q8_0", 30, "f7adf4722e6adc83", 512, "x.gguf")
NAMED = Calibration("x.kvcal.gguf", Path("x.kvcal.gguf"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (ON.format("/models/a b/x.gguf"), CALIBRATED),
        (ON.format("C:\\models\\x.gguf"), CALIBRATED),
        (ON.format("embedded in /m/x.gguf"), replace(CALIBRATED, source="embedded in x.gguf")),
        (
            ON.format(WHERE),
            replace(CALIBRATED, source="measured on 256 tokens, kept in 89bb8e6452fa241e.gguf"),
        ),
        (
            ON.format("measured on 256 tokens in 0.57 s"),
            replace(CALIBRATED, source="measured on 256 tokens"),
        ),
        (
            ON.format("measured on 256 tokens in 0.57 s, not kept: /m/kv cannot be written"),
            replace(CALIBRATED, source="measured on 256 tokens, not kept"),
        ),
        (NOT.format("asked for"), Calibrated(False, "q8_0", reason="asked for")),
        (
            NOT.format("not with --split-mode tensor"),
            Calibrated(False, "q8_0", reason="not with --split-mode tensor"),
        ),
    ],
)
def test_a_calibration_is_read_with_its_source_but_for_the_folder(line: str, found: Calibrated) -> None:
    assert parse_effective(COMPLETION + line).calibrations == (found,)
    assert [parse_effective(COMPLETION + line[:cut]).calibrations for cut in range(len(line))] == [()] * len(line)


def test_what_an_earlier_context_was_calibrated_with_is_gone() -> None:
    found = parse_effective(NOT.format("x") + context_log(512) + ON.format("x.gguf") + NOT.format("y"))
    assert found.calibrations == (CALIBRATED, Calibrated(False, "q8_0", reason="y"))
    assert found.in_force == (CALIBRATED,)


@pytest.mark.parametrize(
    ("asked", "log", "says"),
    [
        (UNCALIBRATED, ON.format("x"), r"the cache is calibrated \(x\), requested off"),
        (AUTO, "", "the programs know nothing of a calibration, requested auto: use --calibration off with them"),
        (NAMED, "", "the programs know nothing of a calibration, requested x.kvcal.gguf"),
        (
            AUTO,
            NOT.format("not measured"),
            r"is not calibrated \(not measured\), requested auto: use --calibration off",
        ),
        (AUTO, ON.format("x") + NOT.format("not with --split-mode tensor"), r"\(not with --split-mode tensor\)"),
    ],
)
def test_a_run_with_another_calibration_is_refused(asked: Calibration, log: str, says: str) -> None:
    with pytest.raises(ConfigurationMismatch, match=says):
        require_effective(RAN, K_ONLY, MODEL, parse_effective(COMPLETION + log), asked)


@pytest.mark.parametrize(
    ("asked", "log"),
    [(UNCALIBRATED, NOT.format("asked for")), (UNCALIBRATED, ""), (AUTO, ON.format("x")), (NAMED, ON.format("x"))],
)
def test_a_run_with_the_calibration_that_was_asked_for_passes(asked: Calibration, log: str) -> None:
    require_effective(RAN, K_ONLY, MODEL, parse_effective(COMPLETION + log), asked)


@pytest.mark.parametrize(
    ("cache", "asked", "refused"),
    [("f16", AUTO, False), ("f16", NAMED, True), ("f16/turbo4", AUTO, False), ("q8_0/f16", AUTO, True)],
)
def test_auto_must_calibrate_a_quantized_k_and_a_file_any(cache: str, asked: Calibration, refused: bool) -> None:
    lines = (Calibrated(False, "x", reason="not quantized"),)
    assert bool(uncalibrated(CachePair.parse(cache), lines, asked)) is refused


@given(st.integers(0, len(COMPLETION)))
def test_a_cut_log_never_yields_a_value_that_was_not_printed_whole(cut: int) -> None:
    part, whole = parse_effective(COMPLETION[:cut]), parse_effective(COMPLETION)
    assert part.caches in ((), whole.caches)
    assert part.buffers in ((), whole.buffers)
    assert part.n_ctx in (None, whole.n_ctx)
    for name in ("attn_k", "attn_v", "turbo_k", "turbo_v", "flash_attn"):
        assert getattr(part, name) in (None, getattr(whole, name))
    assert parse_tokens(COMPLETION[:cut]) in (None, 3)


def test_kld_statistics_are_read_from_a_real_log() -> None:
    found = parse_divergence(KLD)
    assert found is not None
    assert found.ppl == Estimate(20.610565, 2.766509)
    assert found.ppl_base == Estimate(19.063943, 2.559727)
    assert found.mean == Estimate(0.059467, 0.005910)
    assert (found.median, found.p99, found.p999, found.maximum) == (0.028362, 0.628745, 1.458006, 1.488879)
    assert found.rms_dp == Estimate(6.539, 0.646)
    assert found.same_top == Estimate(85.490, 1.561)


def test_every_statistic_of_a_comparison_is_read() -> None:
    """Each number that llama-perplexity prints in its three blocks is in the record, and no other."""
    found = parse_divergence(KLD_TURBO)
    assert found is not None
    blocks = KLD_TURBO.partition("====== Perplexity")[2]
    table = KLD_TURBO.partition("chunk   ")[2].partition("\n")[2].partition("\n\n")[0]
    lines = [line.partition(":")[2] for line in blocks.splitlines()] + table.splitlines()
    printed = {float(word) for line in lines for word in PRINTED.findall(line)}
    ranks = {percent for quantiles in (found.kld, found.dp) for percent, _ in quantiles.points}
    assert numbers(found) == printed | ranks
    assert (found.ln_ratio, found.ratio) == (
        Estimate(0.000218, 0.004431),
        Estimate(1.000218, 0.004432),
    )
    assert (found.correlation, found.difference) == (99.90, Estimate(0.004149, 0.084204))
    assert (found.mean_dp, found.dp.at(25.0), found.dp.at(0.0)) == (Estimate(-0.166, 0.065), -0.356, -9.768)
    assert (found.kld.at(0.1), found.kld.at(95.0)) == (0.000001, 0.022340)


def test_the_running_table_is_read_row_by_row() -> None:
    rows = parse_running(KLD_TURBO)
    assert [row.chunk for row in rows] == [1, 2, 3, 4]
    assert rows[1] == Running(
        2,
        ppl=Estimate(24.7148, 3.2039),
        ln_ratio=Estimate(-0.00621, 0.00651),
        kld=Estimate(0.00877, 0.00046),
        rms_dp=Estimate(2.036, 0.171),
        same_top=Estimate(94.706, 0.992),
    )


@pytest.mark.parametrize("log", [KLD, KLD_TURBO])
@given(data=st.data())
def test_a_table_cut_at_any_byte_gives_whole_rows_only(log: str, data: st.DataObject) -> None:
    raw = log.encode()
    part = parse_running(raw[: data.draw(st.integers(0, len(raw)))].decode("utf-8", errors="replace"))
    assert part == parse_running(log)[: len(part)]


@pytest.mark.parametrize("rank", ["99.9%   KLD", "25.0%   Δp", "Minimum Δp", "Cor(ln(PPL(Q)), ln(PPL(base)))"])
def test_a_log_without_one_statistic_is_no_result(rank: str) -> None:
    assert rank in KLD
    assert parse_divergence("\n".join(line for line in KLD.split("\n") if not line.startswith(rank))) is None


def test_values_that_are_not_finite_are_read_as_they_are() -> None:
    log = KLD.replace("0.059467 ±   0.005910", "nan ±       -nan").replace("1.488879", "inf")
    found = parse_divergence(log)
    assert found is not None
    assert math.isnan(found.mean.value)
    assert found.maximum == math.inf


def test_a_text_that_is_too_short_is_told_with_both_numbers() -> None:
    assert parse_too_short(TOO_SHORT) == (1024, 812)
    assert parse_too_short(PPL) is None


@given(st.integers(0, len(TOO_SHORT)))
def test_a_cut_log_never_gives_half_a_number_of_tokens(cut: int) -> None:
    assert parse_too_short(TOO_SHORT[:cut]) in (None, (1024, 812))


def test_the_size_of_base_logits_is_known_beforehand() -> None:
    assert perplexity.base_bytes(49152, 512, 4) == 100286452  # a file that llama-perplexity wrote
    assert perplexity.base_bytes(49153, 512, 4) == perplexity.base_bytes(49154, 512, 4)


@pytest.mark.parametrize("log", [KLD, KLD_TURBO])
def test_a_kld_log_cut_at_any_byte_gives_all_or_nothing(log: str) -> None:
    raw, whole = log.encode(), parse_divergence(log)
    parts = [parse_divergence(raw[:cut].decode("utf-8", errors="replace")) for cut in range(len(raw))]
    assert whole is not None
    assert [part for part in parts if part not in (None, whole)] == []


@given(st.integers(0, len(PPL)))
def test_a_perplexity_log_cut_anywhere_gives_a_prefix_of_the_chunks(cut: int) -> None:
    whole = parse_chunks(PPL)
    part = parse_chunks(PPL[:cut])
    assert part == whole[: len(part)]
    assert parse_final(PPL[:cut]) in (None, Estimate(41.2934, 13.57693))


def test_perplexity_is_read_from_a_real_log() -> None:
    assert parse_chunks(PPL) == (15.9306, 21.9454, 41.2934)
    assert parse_final(PPL) == Estimate(41.2934, 13.57693)


def test_a_standard_error_of_nan_is_a_number_like_any_other() -> None:
    log = KLD.replace("0.059467 ±   0.005910", "-0.000000 ±       -nan")
    found = parse_divergence(log)
    assert found is not None
    assert found.mean.value == 0


def test_an_answer_is_free_of_log_lines() -> None:
    assert parse_answer(CHAT, "The capital of France is") == "The capital of France is Paris."


def test_an_answer_to_another_prompt_is_not_found() -> None:
    with pytest.raises(BinaryFailed, match="no answer"):
        parse_answer(CHAT, "The capital of Spain is")


def test_a_completion_is_the_text_between_the_logs() -> None:
    assert parse_completion(COMPLETION) == "five. [end of text]"
    assert parse_tokens(COMPLETION) == 3


def test_backend_op_cases_are_counted_by_type_and_op() -> None:
    passed, failed = parse_cases(OPS)
    assert count_turbo(passed) == {("turbo4", "CPY"): 4}
    assert failed == []


def test_a_failed_backend_op_is_named() -> None:
    passed, failed = parse_cases(OPS.replace("\x1b[1;32mOK", "\x1b[1;31mFAIL", 1))
    assert count_turbo(passed) == {("turbo4", "CPY"): 3}
    assert str(failed[0]).startswith("CPY(type_src=f32,type_dst=turbo4")


TABLE = [
    (Knobs(), False, False),
    (Knobs(k=True), True, False),
    (Knobs(v=True), False, True),
    (Knobs(k=True, v=True), True, True),
    (Knobs(disable=True), False, False),
    (Knobs(disable=True, k=True, v=True), False, False),
]


@pytest.mark.parametrize(("knobs", "k", "v"), TABLE)
def test_the_gate_follows_the_truth_table(knobs: Knobs, k: bool, v: bool) -> None:
    assert gate_is_on(knobs.k, knobs, "q8_0", 64) is k
    assert gate_is_on(knobs.v, knobs, "turbo4", 128) is v
    assert (DISABLE in knobs.environment) is knobs.disable


@pytest.mark.parametrize(("cache_type", "head_dim"), [("f16", 64), ("bf16", 128), ("q8_0", 80), ("turbo4", 96)])
def test_both_guards_keep_the_gate_off(cache_type: str, head_dim: int) -> None:
    assert not gate_is_on(True, BOTH, cache_type, head_dim)


@pytest.mark.parametrize(("head_dim", "size"), [(64, 64), (128, 128), (192, 64), (256, 256), (512, 256), (576, 64)])
def test_the_turbo_rotation_is_as_wide_as_the_head_allows(head_dim: int, size: int) -> None:
    assert turbo_size("turbo3", head_dim) == size
    assert turbo_size("q8_0", head_dim) == 0


def test_turbo_types_cost_their_bits() -> None:
    assert [bits_per_value(name) for name in ("turbo2", "turbo3", "turbo4", "q8_0")] == [2.25, 3.25, 4.25, 8.5]
    assert row_bytes("turbo4", 80) == 2 * 34


def test_an_unknown_cache_type_names_the_known_ones() -> None:
    with pytest.raises(UnknownCacheType) as caught:
        CachePair("f16", "turbo9")
    assert "turbo4" in (caught.value.hint or "")
    with pytest.raises(UnknownCacheType, match=r"'turbo\.4'; did you mean 'turbo4'\?"):
        CachePair.parse("turbo.4")


@pytest.mark.parametrize("text", ["f16", "q8_0/turbo4"])
def test_a_cache_is_one_type_for_both_sides_or_two(text: str) -> None:
    assert CachePair.parse(text).short == text


@pytest.mark.parametrize("text", ["", "/", "f16/", "/f16", "f16/q8_0/f16", "F16"])
def test_what_is_not_a_cache_is_refused(text: str) -> None:
    with pytest.raises(UnknownCacheType):
        CachePair.parse(text)
