"""What is served and why, for people: a few lines before the start, and the address after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from turbotool.memory.text import size
from turbotool.report.table import NOTHING, Column, text
from turbotool.serve import words
from turbotool.serve.families import figure
from turbotool.serve.launch import LiveServer
from turbotool.serve.losses import EVALUATION, REFERENCE, TABLE, Loss
from turbotool.serve.plan import Offer, ServePlan
from turbotool.system.process import display

ASK = '{"messages":[{"role":"user","content":"Hi"}]}'
CHUNKS = 8


def chosen_text(plan: ServePlan) -> str:
    """The model, the memory, what was chosen and why, what else would fit, and what that rests on."""
    lines = [_model(plan), _memory(plan), _tokens(plan), _cache(plan)]
    if len(shown := _shown(plan)) > 1:
        lines += ["", *(f"  {line}" for line in text(_columns(plan), shown).splitlines()), ""]
    return "\n".join([*lines, *_grounds(plan)])


def _model(plan: ServePlan) -> str:
    model = plan.model
    return f"{model.path.name}: {model.arch}, trained for {model.n_ctx_train} tokens"


def _memory(plan: ServePlan) -> str:
    budget = plan.budget
    parts = [f"model {size(budget.model)}", f"compute buffers {size(budget.reserve)}"]
    parts += [f"states {size(plan.states)}"] if plan.states else []
    return f"memory {size(budget.total)} {plan.pool.about}: {', '.join(parts)}, cache {size(plan.chosen.kv)}"


def _tokens(plan: ServePlan) -> str:
    serving, count = plan.wanted.serving, plan.wanted.serving.sequences
    each = f", shared by {count} sequences" if serving.shared else f", for each of {count} sequences"
    return f"serving {plan.ctx} tokens{each if count > 1 else ''}"


def _cache(plan: ServePlan) -> str:
    loss = plan.chosen.loss
    lost = "" if loss and loss.source == REFERENCE else f" (KLD {loss_text(loss)})"
    return f"cache {plan.chosen.configuration}{lost}: {_why(plan)}"


def _why(plan: ServePlan) -> str:
    chosen, others = plan.chosen, [one for one in plan.offers if one.allowed and one is not plan.chosen]
    if len(plan.offers) == 1:
        return "the only one that --kv names"
    if not others:
        return "the only one that loses as little as is asked for"
    if chosen.loss and chosen.loss.source == REFERENCE:
        return "it fits, and nothing is lost"
    return "it loses least of those that reach so far"


def _shown(plan: ServePlan) -> Sequence[Offer]:
    """The caches that are allowed, the chosen one first."""
    return sorted((one for one in plan.offers if one.allowed), key=lambda one: (one is not plan.chosen, one.rank))


def _columns(plan: ServePlan) -> list[Column[Offer]]:
    trained = plan.model.n_ctx_train
    return [
        Column("cache", lambda one: str(one.configuration), is_text=True),
        Column(f"at {plan.ctx} tokens", lambda one: size(one.kv)),
        Column("largest context", lambda one: f"{one.largest} (all)" if one.largest == trained else str(one.largest)),
        Column("KLD", lambda one: loss_text(one.loss)),
        Column("measured on", lambda one: _place(one.loss, plan), is_text=True),
    ]


def loss_text(loss: Loss | None) -> str:
    if loss is None:
        return "unknown"
    return "0" if loss.source == REFERENCE else figure(loss.kld)


def _place(loss: Loss | None, plan: ServePlan) -> str:
    places = {EVALUATION: "this model", TABLE: plan.evidence.family.measured_on}
    return places.get(loss.source, NOTHING) if loss else NOTHING


def _grounds(plan: ServePlan) -> list[str]:
    """What the choice rests on, and the command that would measure."""
    evidence = plan.evidence
    notes = [evidence.note] if evidence.note else []
    sources = {loss.source for one in plan.offers if one.allowed and (loss := one.loss)}
    if EVALUATION in sources and TABLE not in sources:
        return [*notes, "that rests on what `turbotool eval` measured on this model"]
    if evidence.family.kld is None:
        ground = f"no model of its kind was measured ({evidence.family.name}), so that f16 alone is sure"
    elif EVALUATION in sources:
        ground = f"what was not measured on this model is from the table of model families: {evidence.family.name}"
    else:
        ground = f"that rests on the table of model families: {evidence.family.name}"
    return [*notes, ground, "to measure this model:", f"  {measure(plan)}"]


def measure(plan: ServePlan) -> str:
    """The command that evaluates the model, with the programs that serve it."""
    caches = [one.configuration.pair.short for one in plan.offers if one.loss is None or one.loss.source != REFERENCE]
    path, binaries = plan.model.path, plan.binaries
    model = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    command = ["turbotool", "eval", str(model), *(["--kv", ",".join(caches)] if caches else [])]
    command += ["--rotation", "off", "--chunks", str(CHUNKS)]
    command += ["--backend", binaries.backend] if binaries.backend != "cpu" else []
    return display([*command, *([] if binaries.tree else ["--bin-dir", str(binaries.bin_dir)])])


def ready_text(plan: ServePlan, running: LiveServer) -> str:
    """The address, what is in force, and a line that asks for an answer."""
    found = running.calibration
    lines = [f"K is calibrated: {found.layers} layers, {found.source}"] if found else []
    if not running.effective.caches and plan.model.kv.caches:
        lines.append("its log does not say which cache is in force")
    lines.append(f"ready after {running.seconds:.1f} s at {running.address} (Ctrl-C ends it)")
    return "\n".join([*lines, f"  {curl(plan, running)}"])


def curl(plan: ServePlan, running: LiveServer) -> str:
    """A line for a shell that asks for an answer."""
    prefix = words.value(plan.wanted.words, os.environ, *words.PREFIX)
    names, variable = words.KEYS
    secret = words.has(plan.wanted.words, names) or variable in os.environ
    key = ' -H "Authorization: Bearer $KEY"' if secret else ""
    where = running.address.removeprefix("unix://")
    url = f"--unix-socket {where} http://localhost" if where != running.address else where
    return f"curl {url}{prefix}/v1/chat/completions{key} -d '{ASK}'"
