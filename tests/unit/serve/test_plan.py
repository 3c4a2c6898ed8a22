"""Which context and cache are served, and what is said where nothing fits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_model import known_model

from turbotool.errors import DoesNotFit
from turbotool.evaluation.cell import Configuration
from turbotool.inputs.model import KeyTraits, Model
from turbotool.inputs.shape import KvShape, cache_shape
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO
from turbotool.kv.serving import LLAMA_SERVER, Serving
from turbotool.kv.size import MIB, calibration_bytes, kv_bytes
from turbotool.memory.plan import Budget
from turbotool.programs.binaries import Binaries
from turbotool.programs.divergence import Estimate
from turbotool.serve.families import FAMILIES, MLA, family_of
from turbotool.serve.losses import EVALUATION, Evidence, Loss
from turbotool.serve.plan import SHORTEST, ServePlan, Wanted, plan_server
from turbotool.serve.pool import Pool

MODEL = known_model()
PAIRS = tuple(map(CachePair.parse, ("f16", "q8_0", "q8_0/turbo4", "turbo4", "turbo3", "turbo2")))
WANTED = Wanted(None, 0.02, PAIRS, LLAMA_SERVER)
WEIGHTS, RESERVE = 100 * MIB, 64 * MIB


def cost(name: str, ctx: int, model: Model = MODEL) -> int:
    """Bytes of a cache and what it is calibrated with."""
    pair = CachePair.parse(name)
    return kv_bytes(model.kv, pair, ctx, LLAMA_SERVER) + calibration_bytes(model.kv, pair)


def planned(room: int, wanted: Wanted = WANTED, model: Model = MODEL, evidence: Evidence | None = None) -> ServePlan:
    """What is served where caches may take so many bytes."""
    total = WEIGHTS + RESERVE + room
    found = evidence or Evidence(family_of(model))
    return plan_server(
        model, Binaries(Path("bin")), Pool(total, "free"), Budget(total, WEIGHTS, RESERVE), wanted, found
    )


def cache(plan: ServePlan) -> str:
    return str(plan.chosen.configuration)


def test_what_fits_whole_as_f16_is_served_so() -> None:
    plan = planned(cost("f16", 8192))
    assert (cache(plan), plan.ctx, plan.spare) == ("f16", 8192, 0)


def test_a_byte_less_and_the_cache_that_loses_least_is_taken() -> None:
    plan = planned(cost("f16", 8192) - 1)
    assert (cache(plan), plan.ctx) == ("q8_0", 8192)
    assert plan.chosen.kv == cost("q8_0", 8192)


def test_the_context_is_shorter_where_no_cache_that_is_allowed_holds_all_of_it() -> None:
    plan = planned(cost("turbo4", 8192) - 1)
    assert (cache(plan), plan.ctx) == ("turbo4", 8192 - 256)
    assert plan.chosen.kv == cost("turbo4", plan.ctx) <= plan.budget.left
    assert {one.kv for one in plan.offers} == {cost(str(one.configuration), plan.ctx) for one in plan.offers}


def test_more_loss_is_taken_only_if_it_is_asked_for() -> None:
    room = cost("turbo3", 8192)
    assert planned(room).ctx < 8192
    plan = planned(room, replace(WANTED, quality=0.1))
    assert (cache(plan), plan.ctx) == ("turbo3", 8192)


def test_the_error_of_a_loss_counts_against_it() -> None:
    at_most = Evidence(family_of(MODEL)).of(CachePair.parse("turbo4"))[1]
    assert at_most
    tight = replace(WANTED, quality=at_most.kld.value, pairs=(CachePair.parse("turbo4"),))
    with pytest.raises(DoesNotFit):
        planned(1 << 40, tight)
    assert cache(planned(1 << 40, replace(tight, quality=at_most.most))) == "turbo4"


def test_a_context_that_is_named_is_served_or_refused_and_never_shortened() -> None:
    wanted = replace(WANTED, ctx=16384)  # more than trained for
    assert planned(cost("turbo4", 16384), wanted).ctx == 16384
    with pytest.raises(DoesNotFit, match=r"m.gguf: no cache with a KLD up to 0.02 holds 16384 tokens in the "):
        planned(cost("turbo4", 16384) - 1, wanted)


def test_a_short_context_is_served_only_if_it_is_asked_for() -> None:
    room = cost("turbo4", SHORTEST) - 1
    with pytest.raises(DoesNotFit) as caught:
        planned(room)
    assert f"--ctx {SHORTEST - 256} (turbo4)" in str(caught.value.hint)
    assert planned(room, replace(WANTED, ctx=SHORTEST - 256)).ctx == SHORTEST - 256


@given(room=st.integers(1, cost("f16", 16384)), ctx=st.sampled_from([None, 256, 4096, 8192, 16384]))
def test_what_a_refusal_offers_would_fit(room: int, ctx: int | None) -> None:
    """Each of them, typed instead, is served; and what is served fits."""
    wanted = replace(WANTED, ctx=ctx)
    try:
        plan = planned(room, wanted)
    except DoesNotFit as error:
        offered = dict(re.findall(r"--(\w+) ([\d.]+)", str(error.hint)))
        assert "memory" in offered
        gib = float(offered["memory"]) * (1 << 30)
        assert planned(int(gib) - WEIGHTS - RESERVE, wanted).chosen.allowed
        if "ctx" in offered:
            assert planned(room, replace(wanted, ctx=int(offered["ctx"]))).spare >= 0
        if "quality" in offered:
            assert planned(room, replace(wanted, quality=float(offered["quality"]))).spare >= 0
    else:
        assert plan.spare >= 0
        assert plan.chosen.loss
        assert plan.chosen.loss.most <= 0.02


def test_a_model_larger_than_the_memory_is_told_with_what_it_takes() -> None:
    with pytest.raises(DoesNotFit, match=r"m.gguf: the model takes 100.00 MiB and compute buffers 64.00 MiB") as caught:
        planned(-WEIGHTS)
    assert str(caught.value.hint).startswith("--memory ")


def test_caches_that_the_programs_refuse_are_not_offered() -> None:
    odd = replace(MODEL, kv=KvShape((cache_shape((1, 1), 80, 80),), (80,), (80,)))
    assert [str(one.configuration) for one in planned(1 << 40, model=odd).offers] == ["f16"]
    with pytest.raises(DoesNotFit, match="make none of these caches"):
        planned(1 << 40, replace(WANTED, pairs=(CachePair.parse("turbo4"),)), odd)


def test_a_kind_that_was_not_measured_is_served_as_f16_unless_caches_are_named() -> None:
    mla = replace(MODEL, kv=replace(MODEL.kv, mla=True))
    assert family_of(mla) == MLA
    assert [cache(planned(1 << 40, model=mla)), planned(1 << 40, model=mla).evidence.family.kld] == ["f16", None]
    with pytest.raises(DoesNotFit):
        planned(cost("f16", SHORTEST) - 1, model=mla)
    named = replace(WANTED, quality=None, pairs=(CachePair.parse("q8_0"),))
    assert planned(cost("q8_0", 8192), named, mla).chosen.loss is None


def test_sequences_of_their_own_have_the_context_each() -> None:
    wanted = replace(WANTED, serving=Serving(2, shared=False))
    plan = planned(2 * cost("f16", 8192), wanted)
    assert (cache(plan), plan.ctx) == ("f16", 8192)
    assert " ".join(plan.words()).partition(" -c ")[2].startswith("16384 -np 2 ")


@pytest.mark.parametrize("traits", [KeyTraits(bias, centred) for bias in (False, True) for centred in (False, True)])
def test_every_kind_has_a_row_in_which_fewer_bits_lose_more(traits: KeyTraits) -> None:
    family = family_of(replace(MODEL, keys=traits))
    losses = [family.loss(CachePair.parse(name)) for name in ("q8_0", "turbo4", "turbo3", "turbo2")]
    values = [loss.value for loss in losses if loss]
    assert len(values) == 4
    assert values == sorted(values)


def test_a_calibration_that_cannot_take_the_mean_away_leaves_more_loss() -> None:
    pair = CachePair.parse("turbo4")
    for bias in (False, True):
        whole, rest = (family_of(replace(MODEL, keys=KeyTraits(bias, centred))).loss(pair) for centred in (True, False))
        assert whole
        assert rest
        assert whole.value < rest.value
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def evaluated(*losses: tuple[str, str, float, float]) -> Evidence:
    """Caches with their rotation, loss and error."""
    found = tuple(
        (Configuration(CachePair.parse(name), rotation, AUTO), Loss(Estimate(value, error), EVALUATION))
        for name, rotation, value, error in losses
    )
    return Evidence(family_of(MODEL), found)


@pytest.mark.parametrize(
    ("off", "rotated", "chosen"), [((0.01, 0.001), (0.005, 0.001), "v"), ((0.01, 0.001), (0.008, 0.001), "off")]
)
def test_a_side_is_rotated_only_for_a_gain_beyond_the_errors(
    off: tuple[float, float], rotated: tuple[float, float], chosen: str
) -> None:
    evidence = evaluated(("q8_0", "off", *off), ("q8_0", "v", *rotated))
    assert evidence.of(CachePair.parse("q8_0"))[0].rotation == chosen
    plan = planned(cost("q8_0", 8192), evidence=evidence)
    assert bool(plan.environment) == (chosen == "v")
    assert plan.command.startswith("LLAMA_ATTN_ROT_V_OVERRIDE=1 ") == (chosen == "v")


def test_what_was_measured_decides_against_the_table() -> None:
    evidence = evaluated(
        ("q8_0", "off", 0.5, 0.01), ("turbo4", "off", 0.001, 0.0001), ("turbo3", "off", float("nan"), 0)
    )
    plan = planned(cost("q8_0", 8192), replace(WANTED, quality=None), evidence=evidence)
    assert cache(plan) == "turbo4"
    assert [one.allowed for one in planned(1 << 40, evidence=evidence).offers if one.bits == 3.25] == [False]
