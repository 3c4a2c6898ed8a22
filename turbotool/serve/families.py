"""What a cache loses on a kind of model: the table that a choice rests on where the model itself was not evaluated.

A row is one small model that was measured, no average: another model of its kind may lose more or less. Every figure is
a mean KLD against an f16 cache in nats with its standard error over tokens, 8 chunks of 512 tokens of the prose of
llama.cpp's documentation. Commands, commits and the machine: docs/guides/serve.md and docs/concepts/calibration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.programs.divergence import Estimate

PLAIN_MODEL = "SmolLM2-135M-Instruct Q4_1"
BIASED_MODEL = "Qwen2.5-Coder-0.5B-Instruct Q4_K_M"
ROUGH = 0.005  # an error from which on three decimals say all


def figure(kld: Estimate) -> str:
    """A loss as it is shown, without digits that mean nothing."""
    return kld.text(4 if kld.error < ROUGH else 3)


@dataclass(frozen=True)
class ModelFamily:
    """A kind of model: what tells it, on which model it was measured (empty: on none), and the loss of each cache."""

    name: str
    measured_on: str = ""
    kld: Mapping[str, Estimate] | None = None

    def loss(self, pair: CachePair) -> Estimate | None:
        """None for a cache that was not measured."""
        return (self.kld or {}).get(pair.short)


PLAIN = ModelFamily(
    "K without a bias, calibrated",
    PLAIN_MODEL,
    {
        "q8_0": Estimate(0.0043, 0.0001),
        "q8_0/turbo4": Estimate(0.008524, 0.000251),
        "q4_0": Estimate(0.026121, 0.000751),
        "turbo4": Estimate(0.0181, 0.0006),
        "turbo3": Estimate(0.0654, 0.0023),
        "turbo2": Estimate(0.377, 0.0102),
    },
)
BIASED = ModelFamily(
    "K with a bias, calibrated",
    BIASED_MODEL,
    {
        "q8_0": Estimate(0.0027, 0.0002),
        "q8_0/turbo4": Estimate(0.004635, 0.000130),
        "q4_0": Estimate(0.020337, 0.000623),
        "turbo4": Estimate(0.0111, 0.0005),
        "turbo3": Estimate(0.0390, 0.0016),
        "turbo2": Estimate(0.240, 0.0101),
    },
)
# A calibration leaves the mean of K where it is there, which is most of what it takes away elsewhere: the figures are
# those without any calibration.
PLAIN_UNCENTRED = ModelFamily(
    "K without a bias, attention with sinks or capped logits",
    f"{PLAIN_MODEL}, uncalibrated",
    {
        "q8_0": Estimate(0.0053, 0.0001),
        "q8_0/turbo4": Estimate(0.008978, 0.000236),
        "q4_0": Estimate(0.134473, 0.002981),
        "turbo4": Estimate(0.0414, 0.0014),
        "turbo3": Estimate(0.178, 0.0058),
        "turbo2": Estimate(0.972, 0.0208),
    },
)
BIASED_UNCENTRED = ModelFamily(
    "K with a bias, attention with sinks or capped logits",
    f"{BIASED_MODEL}, uncalibrated",
    {
        "q8_0": Estimate(0.0171, 0.0027),
        "q8_0/turbo4": Estimate(0.015628, 0.000597),
        "q4_0": Estimate(1.210299, 0.034872),
        "turbo4": Estimate(1.342, 0.0449),
        "turbo3": Estimate(1.657, 0.0510),
        "turbo2": Estimate(4.203, 0.0711),
    },
)
MLA = ModelFamily("K that is compressed (MLA)")
FAMILIES = (PLAIN, BIASED, PLAIN_UNCENTRED, BIASED_UNCENTRED, MLA)


def family_of(model: Model) -> ModelFamily:
    """The kind of a model, by what its file says of its keys."""
    if model.kv.mla:
        return MLA
    if model.keys.centred:
        return BIASED if model.keys.bias else PLAIN
    return BIASED_UNCENTRED if model.keys.bias else PLAIN_UNCENTRED
