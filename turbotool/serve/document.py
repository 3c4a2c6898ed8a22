"""What is served as one JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.report.document import number
from turbotool.serve.launch import LiveServer
from turbotool.serve.plan import Offer, ServePlan
from turbotool.system import documents


@dataclass(frozen=True)
class OfferFields:
    """A cache that the programs make: its bytes at the context that is served, and the largest context in tokens.

    `mean_kld` is in nats with its standard error, null where nobody knows it; `source` is what it was measured on:
    `f16`, `evaluation` of this model, `table` of model families. `allowed`: it loses no more than is tolerated.
    """

    k: str
    v: str
    rotation: str
    kv_bytes: int
    largest_ctx: int
    mean_kld: float | None
    mean_kld_error: float | None
    source: str | None
    allowed: bool


@dataclass(frozen=True)
class MemoryFields:
    """Memory that there is, and what of it model, compute buffers, recurrent states and the chosen cache take.

    `free` is false if the amount was named, `prompt_mib` what earlier prompts may take, null as llama-server has it.
    """

    total_bytes: int
    about: str
    model_bytes: int
    reserve_bytes: int
    state_bytes: int
    kv_bytes: int
    prompt_mib: int | None


@dataclass(frozen=True)
class LiveServerFields:
    """A server that answers: its address, its process, seconds until it was ready, its log.

    `calibration` is the source of what K is calibrated with, null if it is not; `confirmed`: the log says that the
    cache is the chosen one.
    """

    address: str
    pid: int
    seconds: float
    log: str
    calibration: str | None
    confirmed: bool


@documents.document("serve")
@dataclass(frozen=True)
class ServeDocument:
    """What is served: the context and the cache with what they rest on, and the server, null if it was not started.

    `ctx` is in tokens; `quality` is the mean KLD that is tolerated, null for any. `command` serves the same without
    turbotool, `measure` measures what the cache loses on this model.
    """

    ok: bool
    model: str
    architecture: str
    trained_ctx: int
    backend: str
    ctx: int
    sequences: int
    shared: bool
    quality: float | None
    memory: MemoryFields
    chosen: OfferFields
    offers: tuple[OfferFields, ...]
    family: str
    measured_on: str | None
    note: str | None
    command: str
    measure: str
    server: LiveServerFields | None


def document(plan: ServePlan, measure: str, running: LiveServer | None = None) -> ServeDocument:
    """The document of `turbotool serve --json`."""
    model, wanted, evidence = plan.model, plan.wanted, plan.evidence
    return ServeDocument(
        ok=True,
        model=str(model.path),
        architecture=model.arch,
        trained_ctx=model.n_ctx_train,
        backend=plan.binaries.backend,
        ctx=plan.ctx,
        sequences=wanted.serving.sequences,
        shared=wanted.serving.shared,
        quality=wanted.quality,
        memory=_memory(plan),
        chosen=_offer(plan.chosen),
        offers=tuple(map(_offer, plan.offers)),
        family=evidence.family.name,
        measured_on=evidence.family.measured_on or None,
        note=evidence.note or None,
        command=plan.command,
        measure=measure,
        server=_running(running) if running else None,
    )


def _memory(plan: ServePlan) -> MemoryFields:
    budget = plan.budget
    return MemoryFields(
        budget.total, plan.pool.about, budget.model, budget.reserve, plan.states, plan.chosen.kv, plan.prompts_mib
    )


def _offer(one: Offer) -> OfferFields:
    configuration, loss = one.configuration, one.loss
    return OfferFields(
        k=configuration.pair.k,
        v=configuration.pair.v,
        rotation=configuration.rotation,
        kv_bytes=one.kv,
        largest_ctx=one.largest,
        mean_kld=number(loss.kld.value) if loss else None,
        mean_kld_error=number(loss.kld.error) if loss else None,
        source=loss.source if loss else None,
        allowed=one.allowed,
    )


def _running(running: LiveServer) -> LiveServerFields:
    found = running.calibration
    return LiveServerFields(
        address=running.address,
        pid=running.pid,
        seconds=round(running.seconds, 3),
        log=str(running.log),
        calibration=found.source if found else None,
        confirmed=bool(running.effective.caches),
    )
