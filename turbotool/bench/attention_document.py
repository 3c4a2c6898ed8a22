"""The attention alone as one JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.bench.attention import AttentionBench, AttentionCell
from turbotool.bench.document import DIGITS
from turbotool.report.document import rounded
from turbotool.system import documents
from turbotool.system.machine import Machine


@dataclass(frozen=True)
class AttentionBuild:
    """A build that is measured: `tree` is git's id of the tree that it was built from, null if that is unknown."""

    name: str
    bin_dir: str
    tree: str | None


@dataclass(frozen=True)
class AttentionCellFields:
    """One cache and shape on a build: `group` query heads of each KV head, `tokens` that ask at once, `depth` cells.

    Times are ns for each cell and KV head: median, least and most of the medians of rounds, the least repetition, and
    what reading the bytes takes. Ratios are of times, taken within a round; null where there is nothing beside it.
    """

    build: str
    cache: str
    head: str
    group: int
    tokens: int
    depth: int
    threads: int
    ns: float | None
    ns_min: float | None
    ns_max: float | None
    ns_least: float | None
    read_ns: float | None
    ratio_f16: float | None
    ratio_against: float | None


@documents.document("bench-attention")
@dataclass(frozen=True)
class AttentionDocument:
    """The time of the attention alone on a CPU, without a model, over `rounds` runs of each build in turn."""

    ok: bool
    machine: Machine
    builds: tuple[AttentionBuild, ...]
    rounds: int
    repeats: int
    heads_kv: int
    mib: int
    cells: tuple[AttentionCellFields, ...]
    log: str


def attention_document(done: AttentionBench) -> AttentionDocument:
    """The document of `turbotool bench attention --json`."""
    settings = done.settings
    return AttentionDocument(
        ok=True,
        machine=done.machine,
        builds=tuple(
            AttentionBuild(name, str(found.bin_dir), found.tree or None) for name, found in done.binaries.items()
        ),
        rounds=done.rounds,
        repeats=settings.repeats,
        heads_kv=settings.heads_kv,
        mib=settings.mib,
        cells=tuple(map(_cell, done.cells)),
        log=str(done.log),
    )


def _cell(cell: AttentionCell) -> AttentionCellFields:
    shape = cell.shape
    return AttentionCellFields(
        build=cell.build,
        cache=cell.cache,
        head=shape.head,
        group=shape.group,
        tokens=shape.tokens,
        depth=shape.depth,
        threads=shape.threads,
        ns=rounded(cell.ns.median, DIGITS),
        ns_min=rounded(cell.ns.minimum, DIGITS),
        ns_max=rounded(cell.ns.maximum, DIGITS),
        ns_least=rounded(cell.least, DIGITS),
        read_ns=rounded(cell.read, DIGITS),
        ratio_f16=rounded(cell.ratio_f16.median, DIGITS) if cell.ratio_f16 else None,
        ratio_against=rounded(cell.ratio_against.median, DIGITS) if cell.ratio_against else None,
    )
