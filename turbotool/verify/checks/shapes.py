"""What the default model cannot show, on models made for it: head sizes, graphs near their budget, biases of K."""

from __future__ import annotations

from pathlib import Path

from turbotool.inputs.biased import write_biased
from turbotool.inputs.model import read_model
from turbotool.inputs.synthetic import Shape, write_model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED
from turbotool.kv.effective import VERBOSE, Effective, parse_effective
from turbotool.kv.rotation import BOTH, OFF, Knobs
from turbotool.programs.perplexity import compare, save_logits
from turbotool.programs.runner import failure
from turbotool.system.process import Completed, describe_exit
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.quality import TURBO4

ODD = Shape("llama", layers=1, heads=2, head_dim=96)  # whole blocks of q8_0, but not of a rotation or a turbo type
# Six tensors a block allow 48 nodes; attention rotated twice on both sides takes 53. Shallow models hide that, because
# every graph may have 1024 nodes.
DEEP = Shape("phi3", layers=60, heads=1, head_dim=64)
# With biases of K, of the unspoilt calibrated model's KLD: calibrated at most so many times, uncalibrated at least.
# Measured on the default text, four chunks: .99 and 246 times.
BIASED_CALIBRATED, BIASED_PLAIN = 1.5, 20.0


def head_size_guard(context: Context) -> CheckOutcome:
    """A head size of 96: an override stays off and says why, and a turbo type is refused with a message."""
    model = context.work / "odd-heads.gguf"
    try:
        write_model(model, ODD)
        allowed = _run(context, model, CachePair("q8_0", "q8_0"), BOTH)
        refused = _run(context, model, CachePair("turbo4", "q8_0"), OFF)
    finally:
        model.unlink(missing_ok=True)
    if allowed.returncode != 0:
        raise failure("llama-completion", allowed)
    faults = _size_faults(parse_effective(allowed.output))
    message = f"does not divide n_embd_head_k={ODD.head_dim}"
    if refused.returncode <= 0 or message not in refused.output:
        faults.append(f"turbo4: {describe_exit(refused.returncode)}, no message with '{message}'")
    return CheckOutcome(not faults, len(faults), "= 0 faults", "; ".join(faults) or f"refused: turbo4 {message}")


def _size_faults(effective: Effective) -> list[str]:
    faults = []
    for side, rotation in (("K", effective.attn_k), ("V", effective.attn_v)):
        if rotation is None or rotation.on:
            faults.append(f"{side} is rotated, or the log does not say")
        elif f"head size {ODD.head_dim} is not a multiple" not in (rotation.reason or ""):
            faults.append(f"{side} is off for another reason: {rotation.reason}")
    return faults


def graph_budget(context: Context) -> CheckOutcome:
    """A deep model with fused QKV and every rotation in force does not overflow its graph."""
    model = context.work / "fused-qkv.gguf"
    try:
        write_model(model, DEEP)
        done = _run(context, model, TURBO4, BOTH)
    finally:
        model.unlink(missing_ok=True)
    rotated = [
        side for side in (parse_effective(done.output).attn_k, parse_effective(done.output).attn_v) if side and side.on
    ]
    faults = [] if done.returncode == 0 else [describe_exit(done.returncode)]
    faults += [] if len(rotated) == len("kv") else ["the rotations were not in force"]
    detail = "; ".join(faults) or f"{DEEP.layers} layers, {DEEP.arch}, turbo4 with both overrides"
    return CheckOutcome(not faults, describe_exit(done.returncode), "exit status 0, both sides rotated", detail)


def calibrated_biases(context: Context) -> CheckOutcome:
    """With large constants in K turbo4 is broken, and as good as without them once it is calibrated."""
    if not context.model.is_default:
        return CheckOutcome(False, None, "", "the copy with biases is made of the default model", skipped=True)
    unspoilt = context.divergence(TURBO4, OFF, AUTO).mean
    path, base = context.work / "biased.gguf", context.work / "biased.logits"
    try:
        model = read_model(write_biased(context.model.path, path, context.model.head_dim_k))
        save_logits(context.runner, model, context.text, F16, base)
        plain, found = (
            compare(context.runner, model, context.text, TURBO4, base, OFF, calibration)[0].mean
            for calibration in (UNCALIBRATED, AUTO)
        )
    finally:
        path.unlink(missing_ok=True)
        base.unlink(missing_ok=True)
    ratio = found.value / unspoilt.value
    ok = 0 < ratio <= BIASED_CALIBRATED and plain.value >= BIASED_PLAIN * unspoilt.value
    detail = (
        f"{found.value:.6f} +-{found.error:.6f}, without biases {unspoilt.value:.6f}, uncalibrated {plain.value:.3f}"
    )
    bound = f"<= {BIASED_CALIBRATED:g} times without biases; uncalibrated >= {BIASED_PLAIN:g} times"
    return CheckOutcome(ok, ratio, bound, detail)


def _run(context: Context, model: Path, pair: CachePair, knobs: Knobs) -> Completed:
    runner = context.runner
    shape = ["-t", str(runner.threads), "-fa", "on", "-fit", "off", "-c", "256", "-n", "4", "--temp", "0", "-no-cnv"]
    arguments: list[str | Path] = ["-m", model, *shape, *VERBOSE, *pair.flags, "-p", "a few words to begin with"]
    return runner.plain("llama-completion", arguments, env=knobs.environment, timeout=120)
