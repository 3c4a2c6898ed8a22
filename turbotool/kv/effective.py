"""The effective KV-cache configuration, read back from what a binary logs at `-lv 4`.

Only whole lines count: a log that was cut anywhere never yields a value that was not printed to its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from turbotool.errors import ConfigurationMismatch
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration, can_gain
from turbotool.kv.rotation import Knobs, gate_is_on, turbo_size
from turbotool.system.lines import whole_lines

VERBOSE = ("-lv", "4")  # the level at which the common tools print what the KV cache is
MIB = r"\d+(?:\.\d+)?"
CACHE = re.compile(
    rf"llama_kv_cache\w*: size = *(?P<mib>{MIB}) MiB "
    r"\( *(?P<cells>\d+) cells, *(?P<layers>\d+) layers, *\d+/(?P<streams>\d+) seqs\), "
    rf"K \((?P<k>\w+)\): *(?P<mib_k>{MIB}) MiB, V \((?P<v>\w+)\): *(?P<mib_v>{MIB}) MiB$"
)
BUFFER = re.compile(rf"llama_kv_cache\w*: +(?P<name>\S+) KV buffer size = *(?P<mib>{MIB}) MiB$")
ROTATION = re.compile(
    r"(?P<kind>attn|turbo)_rot_(?P<side>[kv]): (?P<state>on|off)"
    r"(?:, size (?P<size>\d+))?, type (?P<type>\w+)(?: \((?P<reason>.*)\))?$"
)
# `attn_rot_k = 1` until llama.cpp of October 2026, `n_rot_k = 64`, the size, after it
UPSTREAM_ROTATION = re.compile(
    r"(?:attn_rot_(?P<side>[kv]) = (?P<state>[01])|n_rot_(?P<sized>[kv]) = (?P<size>\d+)), n_embd_head_\w+ = -?\d+$"
)
CALIBRATION = re.compile(
    r"kv_calibration: (?:on, K (?P<on>\w+), "
    r"(?P<layers>\d+) layers, hash (?P<hash>[0-9a-f]{16}), for (?P<positions>\d+) positions"
    r"|off, K (?P<off>\w+)) \((?P<why>.*)\)$"
)
# a source names its file by its folder, and says how long it took and why nothing was kept
TOOK = re.compile(r"^(measured on \d+ tokens) in [\d.]+ s")
KEPT_NOT = re.compile(r", not kept: .*$")
FOLDER = re.compile(r"^(?P<how>embedded in |measured on .*?, kept in |)(?:.*[/\\])?(?P<file>.+)$")
FLASH = re.compile(r"llama_context: flash_attn += (?P<state>\w+)$")
CONTEXT = re.compile(r"llama_context: n_ctx +=\s*(?P<n>\d+)$")


@dataclass(frozen=True)
class Cache:
    """One KV cache: cells per stream, layers, streams, and the size in MiB (two decimals) and type of each side."""

    cells: int
    layers: int
    streams: int
    mib: float
    k: str
    mib_k: float
    v: str
    mib_v: float


@dataclass(frozen=True)
class Rotation:
    """One side of one rotation: in force or not, its width in values (None when off or not printed), and why."""

    on: bool
    size: int | None
    type: str | None
    reason: str | None


@dataclass(frozen=True)
class Calibrated:
    """What a context whose K has this type is calibrated with.

    `hash` is of what is in force in so many `layers` and for so many `positions`, `source` where it is from, without a
    folder and the time that it took. Of a context that is not calibrated there is a `reason` instead.
    """

    on: bool
    k: str
    layers: int | None = None
    hash: str | None = None
    positions: int | None = None
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Effective:
    """What a binary reports about its KV caches; empty or None where it printed nothing.

    `calibrations` has a line for each type of K, and none from programs that know nothing of it.
    """

    caches: tuple[Cache, ...]
    buffers: tuple[tuple[str, float], ...]
    flash_attn: str | None
    n_ctx: int | None
    attn_k: Rotation | None
    attn_v: Rotation | None
    turbo_k: Rotation | None
    turbo_v: Rotation | None
    calibrations: tuple[Calibrated, ...] = field(default_factory=tuple)  # older documents do not have it

    @property
    def in_force(self) -> tuple[Calibrated, ...]:
        """The calibrations that are on."""
        return tuple(one for one in self.calibrations if one.on)


def parse_effective(log: str) -> Effective:
    """The effective configuration in a log. The last value wins where a binary builds more than one context."""
    caches: list[Cache] = []
    buffers: list[tuple[str, float]] = []
    single: dict[str, str] = {}
    rotations: dict[str, Rotation] = {}
    calibrations: list[Calibrated] = []
    for line in whole_lines(log):
        if match := CACHE.search(line):
            caches.append(_cache(match))
        elif match := BUFFER.search(line):
            buffers.append((match["name"], float(match["mib"])))
        elif match := ROTATION.search(line):
            size = int(match["size"]) if match["size"] else None
            rotations[f"{match['kind']}_{match['side']}"] = Rotation(
                match["state"] == "on", size, match["type"], match["reason"]
            )
        elif match := UPSTREAM_ROTATION.search(line):
            name, said = f"attn_{match['side'] or match['sized']}", _upstream_rotation(match)
            # upstream's own line follows ours; ours says why, but upstream's is the variable that the graph reads
            ours = rotations.get(name)
            if ours is None or ours.on != said.on or said.size not in (None, ours.size):
                rotations[name] = said
        elif match := CALIBRATION.search(line):
            calibrations.append(_calibrated(match))
        elif match := FLASH.search(line):
            single["flash_attn"] = match["state"]
        elif match := CONTEXT.search(line):
            single["n_ctx"] = match["n"]
            caches, buffers, calibrations = [], [], []  # a new context begins
    n_ctx = int(single["n_ctx"]) if "n_ctx" in single else None
    return Effective(
        caches=tuple(caches),
        buffers=tuple(buffers),
        flash_attn=single.get("flash_attn"),
        n_ctx=n_ctx,
        attn_k=rotations.get("attn_k"),
        attn_v=rotations.get("attn_v"),
        turbo_k=rotations.get("turbo_k"),
        turbo_v=rotations.get("turbo_v"),
        calibrations=tuple(calibrations),
    )


def _upstream_rotation(match: re.Match[str]) -> Rotation:
    size = int(match["size"] or 0)
    return Rotation(match["state"] == "1" or size > 0, size or None, None, None)


def _calibrated(match: re.Match[str]) -> Calibrated:
    if match["off"]:
        return Calibrated(False, match["off"], reason=match["why"])
    return Calibrated(
        on=True,
        k=match["on"],
        layers=int(match["layers"]),
        hash=match["hash"],
        positions=int(match["positions"]),
        source=_short(match["why"]),
    )


def _short(source: str) -> str:
    source, not_kept = KEPT_NOT.subn(", not kept", TOOK.sub(r"\1", source))
    found = None if not_kept else FOLDER.match(source)
    return found["how"] + found["file"] if found else source


def _cache(match: re.Match[str]) -> Cache:
    return Cache(
        cells=int(match["cells"]),
        layers=int(match["layers"]),
        streams=int(match["streams"]),
        mib=float(match["mib"]),
        k=match["k"],
        mib_k=float(match["mib_k"]),
        v=match["v"],
        mib_v=float(match["mib_v"]),
    )


def differences(
    pair: CachePair, knobs: Knobs, model: Model, effective: Effective, calibration: Calibration = UNCALIBRATED
) -> list[str]:
    """What differs between the requested and the effective configuration; an empty list when nothing does."""
    if not effective.caches:
        return ["the log names no KV cache"]
    found = [
        f"{side} cache type is {has}, requested {wanted}"
        for cache in effective.caches
        for side, has, wanted in (("K", cache.k, pair.k), ("V", cache.v, pair.v))
        if has != wanted
    ]
    gates = (
        ("attn_rot_k", effective.attn_k, gate_is_on(knobs.k, knobs, pair.k, model.head_dim_k)),
        ("attn_rot_v", effective.attn_v, gate_is_on(knobs.v, knobs, pair.v, model.head_dim_v)),
        ("turbo_rot_k", effective.turbo_k, turbo_size(pair.k, model.head_dim_k) > 0),
        ("turbo_rot_v", effective.turbo_v, turbo_size(pair.v, model.head_dim_v) > 0),
    )
    for name, rotation, wanted in gates:
        if rotation is None:
            found.append(f"the log says nothing about {name}")
        elif rotation.on != wanted:
            found.append(
                f"{name} is {_word(rotation.on)} ({rotation.reason or 'no reason given'}), expected {_word(wanted)}"
            )
    return [*found, *_turbo_sizes(pair, model, effective), *uncalibrated(pair, effective.calibrations, calibration)]


def uncalibrated(pair: CachePair, lines: Sequence[Calibrated], wanted: Calibration) -> list[str]:
    """How what programs say of a calibration differs from the one that was asked for.

    With auto a K that is not quantized has none. Programs that know nothing of calibrations say nothing.
    """
    if wanted.is_off:
        return [f"the cache is calibrated ({one.source}), requested off" for one in lines if one.on]
    if not wanted.is_file and not can_gain(pair):
        return []
    if not lines:
        return [f"the programs know nothing of a calibration, requested {wanted}: use --calibration off with them"]
    return [
        f"the cache is not calibrated ({one.reason}), requested {wanted}: use --calibration off for this model"
        for one in lines
        if not one.on
    ]


def _turbo_sizes(pair: CachePair, model: Model, effective: Effective) -> list[str]:
    sides = (
        ("turbo_rot_k", effective.turbo_k, turbo_size(pair.k, model.head_dim_k)),
        ("turbo_rot_v", effective.turbo_v, turbo_size(pair.v, model.head_dim_v)),
    )
    return [
        f"{name} has size {side.size}, expected {wanted}"
        for name, side, wanted in sides
        if side and side.on and side.size != wanted
    ]


def _word(on: bool) -> str:
    return "on" if on else "off"


def require_effective(
    pair: CachePair, knobs: Knobs, model: Model, effective: Effective, calibration: Calibration = UNCALIBRATED
) -> None:
    """Raise ConfigurationMismatch unless what ran is what was requested."""
    found = differences(pair, knobs, model, effective, calibration)
    if found:
        raise ConfigurationMismatch(
            f"requested {pair} with rotation {knobs} and calibration {calibration}, but " + "; ".join(found),
            hint="the result is refused; look at the log of this run for what substituted it",
        )
