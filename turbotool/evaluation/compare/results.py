"""A result set: what an evaluation measured, read back from the document that it wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import ResultError
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.report.document import JSON_NAME, RUNNING
from turbotool.kv.cachetype import CachePair
from turbotool.kv.rotation import ROTATIONS
from turbotool.programs.divergence import Divergence, Estimate, Quantiles, Running
from turbotool.system.machine import Machine, describe

HINT = "name what `turbotool eval --json` printed, or the folder of its --report"


@dataclass(frozen=True)
class ResultCell:
    """What identifies a result within its set: the sha256 of the text, and the cache."""

    corpus: str
    configuration: Configuration


@dataclass(frozen=True)
class ResultSet:
    """An evaluation that was done. `corpora` are names by sha256; `failures` say why a cell has no figures."""

    name: str
    model: str
    model_sha256: str
    backend: str
    tree: str
    binaries: str
    machines: tuple[str, ...]
    ctx: int
    chunks: int
    corpora: Mapping[str, str]
    measured: Mapping[ResultCell, Measured]
    failures: Mapping[ResultCell, str]


def read_results(path: Path) -> ResultSet:
    """The result set in a document, or in the folder of a report.

    Raises ResultError if it cannot be read or is none, UnknownCacheType if it has cells of a type that we do not know.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"cannot read {file}: {error.strerror}", hint=HINT) from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{file} is not JSON: {error}", hint=HINT) from error
    try:
        return _result_set(path.name if path.is_dir() else path.stem, data)
    except KeyError as error:
        raise ResultError(f"{file} is no document of `turbotool eval`: it has no {error}", hint=HINT) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ResultError(f"{file} is no document of `turbotool eval`: {error}", hint=HINT) from error


def _result_set(name: str, data: Mapping[str, Any]) -> ResultSet:
    if "models" in data:
        raise ValueError("it is of several models; name the folder of one of them in its --report")
    corpora = {str(one["sha256"]): str(one["name"]) for one in data["corpora"]}
    by_name = {text: sha256 for sha256, text in corpora.items()}
    # the q4_0 control last: if it was also asked for, it is the same cell
    cells = {_cell(by_name, one): one for one in (*data["cells"], *data["controls"]["q4_0"])}
    measured = {cell: found for cell, one in cells.items() if (found := _measured(one))}
    known = {found.machine for found in measured.values()} - {""}
    return ResultSet(
        name=name,
        model=str(data["model"]["name"]),
        model_sha256=str(data["model"]["sha256"]),
        backend=str(data["binaries"]["backend"]),
        tree=str(data["binaries"]["tree"] or ""),
        binaries=str(data["binaries"]["sha256"]),
        machines=tuple(sorted(known)) or (describe(_machine(data["machine"])),),
        ctx=int(data["settings"]["ctx"]),
        chunks=int(data["settings"]["chunks"]),
        corpora=corpora,
        measured=measured,
        failures={cell: str(one["failure"]) for cell, one in cells.items() if one["failure"]},
    )


def _machine(data: Mapping[str, Any]) -> Machine:
    return Machine(**{**data, "features": tuple(data["features"])})


def _cell(corpora: Mapping[str, str], data: Mapping[str, Any]) -> ResultCell:
    if data["rotation"] not in ROTATIONS:
        raise ValueError(f"rotation {data['rotation']!r} is none of {', '.join(ROTATIONS)}")
    return ResultCell(corpora[data["corpus"]], Configuration(CachePair(data["k"], data["v"]), data["rotation"]))


def _measured(data: Mapping[str, Any]) -> Measured | None:
    """The inverse of `evaldocument.statistics`, but for the errors of running means, which are not written.

    What was not finite, written as null, is nan. Without per-chunk means, as older versions wrote it, there is no row.
    """
    if data["effective"] is None:
        return None
    divergence = Divergence(
        ppl=_estimate(data, "ppl"),
        ppl_base=_estimate(data, "ppl_f16"),
        correlation=_number(data["ppl_correlation"]),
        ln_ratio=_estimate(data, "ln_ppl_ratio"),
        ratio=_estimate(data, "ppl_ratio"),
        difference=_estimate(data, "ppl_difference"),
        mean=_estimate(data, "mean_kld"),
        kld=_quantiles(data["kld"]),
        mean_dp=_estimate(data, "mean_dp"),
        dp=_quantiles(data["dp"]),
        rms_dp=_estimate(data, "rms_dp"),
        same_top=_estimate(data, "same_top"),
        running=_running(data.get("running") or {name: [] for name in RUNNING}),
    )
    return Measured(divergence, dict(data["effective"]), float(data["seconds"]), str(data.get("machine") or ""))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _estimate(data: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(_number(data[name]), _number(data[f"{name}_error"]))


def _quantiles(data: Mapping[str, Any]) -> Quantiles:
    return Quantiles(tuple((float(percent.removesuffix("%")), _number(value)) for percent, value in data.items()))


def _running(data: Mapping[str, Any]) -> tuple[Running, ...]:
    rows = zip(*([Estimate(_number(value)) for value in data[name]] for name in RUNNING), strict=True)
    return tuple(
        Running(chunk, **dict(zip(RUNNING.values(), row, strict=True))) for chunk, row in enumerate(rows, start=1)
    )
