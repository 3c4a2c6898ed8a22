"""A plan: what an evaluation measures, in a TOML file. Some plans are shipped and known by their names.

Shipped plans repeat published experiments on any model, without calibration as those were; see `plans/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from turbotool.errors import ModelError, PlanError, UnknownCacheType
from turbotool.kv.cachetype import BLOCKS, MAX_TOKENS, CachePair
from turbotool.kv.calibration import AUTO, Calibration, calibration
from turbotool.kv.rotation import ROTATIONS
from turbotool.system.documents import document
from turbotool.system.names import did_you_mean

FOLDER = Path(__file__).parent / "plans"
SUFFIX = ".toml"
SMALLEST_CTX = 16
MAX_KLD = 0.02
MIN_SAME_TOP = 93.0
EQUAL: Mapping[str, float] = {"equal_kld": 5.0, "equal_ppl": 1.0, "equal_top": 1.0}  # percent, percent, points
MAX_INPUTS = 1000
CHOSEN, STORED, STREAMED = "auto", "stored", "streamed"  # what becomes of the logits of f16
INPUTS = {"models": "MODEL", "corpora": "--corpus FILE"}  # how the command line names what a plan may name


@dataclass(frozen=True)
class EvalPlan:
    """What an evaluation measures and by what it recommends; the fields have the names of the keys of a file.

    Without `models` the command line names them, or the default model is measured; so it is with `corpora` and the
    default text. `min_models` and `min_corpora` are how many make sense at least. `max_kld` is in nats, `min_same_top`
    in percent, `ctx` and `serve_ctx` in tokens. What is no difference: `equal_kld` and `equal_ppl` in percent,
    `equal_top` in percentage points. With `until_resolved`, `chunks` are the most that there may be. `logits` of f16
    are stored, streamed, or what is chosen by their size.
    """

    kv: tuple[CachePair, ...]
    rotation: tuple[str, ...]
    ctx: int
    chunks: int
    name: str = ""
    about: str = ""
    models: tuple[Path, ...] = ()
    corpora: tuple[Path, ...] = ()
    max_kld: float = MAX_KLD
    min_same_top: float = MIN_SAME_TOP
    serve_ctx: int | None = None
    min_models: int = 1
    min_corpora: int = 1
    calibration: tuple[Calibration, ...] = (AUTO,)
    equal_kld: float = EQUAL["equal_kld"]
    equal_ppl: float = EQUAL["equal_ppl"]
    equal_top: float = EQUAL["equal_top"]
    until_resolved: bool = False
    logits: str = CHOSEN


@dataclass(frozen=True)
class Key:
    """How a value is read, relative to the folder of its file. `read` raises ValueError with what it refuses."""

    allowed: str
    read: Callable[[object, Path], Any]
    required: bool = False


def _refuse(value: object) -> ValueError:
    return ValueError(repr(value))


def _text(value: object, _: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refuse(value)
    return value


def _whole(low: int, high: int, value: object, _: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refuse(value)
    return value


def _number(low: float, high: float, value: object, _: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _refuse(value)
    return float(value)


def _switch(value: object, _: Path) -> bool:
    if not isinstance(value, bool):
        raise _refuse(value)
    return value


def _each(read: Callable[[object, Path], Any], value: object, folder: Path) -> tuple[Any, ...]:
    """What stands in a list that is not empty, each once."""
    if not isinstance(value, list) or not value:
        raise _refuse(value)
    return tuple(dict.fromkeys(read(item, folder) for item in value))


def _path(value: object, folder: Path) -> Path:
    return folder / _text(value, folder)


def _pair(value: object, folder: Path) -> CachePair:
    try:
        return CachePair.parse(_text(value, folder))
    except UnknownCacheType as error:
        raise _refuse(value) from error


def _side(value: object, _: Path) -> str:
    if value not in tuple(ROTATIONS):
        raise _refuse(value)
    return str(value)


def _logits(value: object, _: Path) -> str:
    if value not in (CHOSEN, STORED, STREAMED):
        raise _refuse(value)
    return str(value)


def _calibration(value: object, folder: Path) -> Calibration:
    try:
        return calibration(_text(value, folder), folder)
    except ModelError as error:
        raise _refuse(value) from error


TOKENS = f"a whole number from 1 to {MAX_TOKENS}"
COUNT = Key(f"a whole number from 1 to {MAX_INPUTS}", partial(_whole, 1, MAX_INPUTS))
FILES = "a list of file names, absolute or relative to the plan"
KEYS: Mapping[str, Key] = {
    "about": Key("a text of one line or more", _text),
    "models": Key(FILES, partial(_each, _path)),
    "corpora": Key(FILES, partial(_each, _path)),
    "kv": Key(
        f"a list of cache types, or of two with a slash for K and V: {', '.join(BLOCKS)}", partial(_each, _pair), True
    ),
    "rotation": Key(f"a list of rotated sides: {', '.join(ROTATIONS)}", partial(_each, _side), True),
    "calibration": Key("a list of off, auto, and files, relative to the plan", partial(_each, _calibration)),
    "ctx": Key(f"a whole number from {SMALLEST_CTX} to {MAX_TOKENS}", partial(_whole, SMALLEST_CTX, MAX_TOKENS), True),
    "chunks": Key(TOKENS, partial(_whole, 1, MAX_TOKENS), True),
    "max_kld": Key("a number, 0 or more", partial(_number, 0, sys.float_info.max)),
    "min_same_top": Key("a number from 0 to 100", partial(_number, 0, 100)),
    "serve_ctx": Key(TOKENS, partial(_whole, 1, MAX_TOKENS)),
    **{name: Key("a number from 0 to 100", partial(_number, 0, 100)) for name in EQUAL},
    "until_resolved": Key("true or false", _switch),
    "logits": Key(f"{CHOSEN}, {STORED} or {STREAMED}", _logits),
    "min_models": COUNT,
    "min_corpora": COUNT,
}


def shipped() -> tuple[EvalPlan, ...]:
    """The plans that come with turbotool, by name."""
    return tuple(_read(path, path.stem) for path in sorted(FOLDER.glob(f"*{SUFFIX}")))


def read_plan(word: str) -> EvalPlan:
    """The plan of that name, or in that file (with `.toml` or a folder before it).

    Raises PlanError: no such plan or file, no TOML, or keys that are unknown, missing or of a value that is not
    allowed; all of those are told at once.
    """
    path = Path(word)
    if path.suffix == SUFFIX or len(path.parts) > 1:
        return _read(path, path.name)
    names = [found.stem for found in sorted(FOLDER.glob(f"*{SUFFIX}"))]
    if word not in names:
        raise PlanError(
            f"no plan '{word}' is shipped{did_you_mean(word, names)}",
            hint=f"use one of {', '.join(names)}, or a file: --plan FILE{SUFFIX}",
        )
    return _read(FOLDER / f"{word}{SUFFIX}", word)


def _read(path: Path, name: str) -> EvalPlan:
    data = _parse(path)
    problems = [f"unknown key '{key}'{did_you_mean(key, KEYS)}" for key in data if key not in KEYS]
    if problems:
        problems.append(f"keys are {', '.join(KEYS)}")
    values: dict[str, Any] = {"name": name}
    for key, rule in KEYS.items():
        if key in data:
            try:
                values[key] = rule.read(data[key], path.parent)
            except ValueError as error:
                problems.append(f"{key}: {error} is not allowed; use {rule.allowed}")
        elif rule.required:
            problems.append(f"{key} is missing; it is {rule.allowed}")
    for key in INPUTS:
        named, needed = len(values.get(key, ())), values.get(f"min_{key}", 1)
        if named and named < needed:
            problems.append(f"{key}: {named} named, but min_{key} is {needed}")
    if problems:
        raise PlanError(f"{path}: " + "\n  ".join(problems), hint="correct the file, or copy a plan from --list-plans")
    return EvalPlan(**values)


def _parse(path: Path) -> dict[str, Any]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except OSError as error:
        raise PlanError(
            f"cannot read the plan {path}: {error.strerror}", hint="turbotool eval --list-plans names those shipped"
        ) from error
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not TOML: {error}", hint="correct the file") from error


def override(plan: EvalPlan, asked: EvalPlan, typed: Iterable[str]) -> tuple[EvalPlan, list[str]]:
    """The plan with the values that were typed beside it, and what was thereby replaced, a line each.

    Models and texts fill what the plan leaves open; that it names none is for the caller to see to.
    """
    changed = {key: getattr(asked, key) for key in typed if getattr(asked, key) != getattr(plan, key)}
    told = [
        f"{option(key)} {shown(value)} instead of {shown(getattr(plan, key))}, which the plan {plan.name} says"
        for key, value in changed.items()
        if key not in INPUTS
    ]
    return replace(plan, **changed), told


def option(key: str) -> str:
    """The option of a key."""
    return f"--{key.replace('_', '-')}"


def shown(value: object) -> str:
    """A value as an option takes it."""
    if isinstance(value, tuple):
        return ",".join(item.short if isinstance(item, CachePair) else str(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "the default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class PlanFields:
    """A shipped plan: caches, rotated sides, tokens of a chunk, chunks of a text, what it needs, calibrations."""

    name: str
    about: str
    kv: tuple[str, ...]
    rotation: tuple[str, ...]
    ctx: int
    chunks: int
    min_models: int
    min_corpora: int
    path: str
    calibration: tuple[str, ...] = (str(AUTO),)


@document("plans")
@dataclass(frozen=True)
class PlansDocument:
    """The plans of an evaluation that are shipped, by name."""

    ok: bool
    plans: tuple[PlanFields, ...]


def plans_document(plans: Iterable[EvalPlan]) -> PlansDocument:
    """What `--list-plans --json` prints."""
    return PlansDocument(True, tuple(map(_fields, plans)))


def _fields(plan: EvalPlan) -> PlanFields:
    return PlanFields(
        name=plan.name,
        about=plan.about,
        kv=tuple(pair.short for pair in plan.kv),
        rotation=plan.rotation,
        ctx=plan.ctx,
        chunks=plan.chunks,
        min_models=plan.min_models,
        min_corpora=plan.min_corpora,
        path=str(FOLDER / f"{plan.name}{SUFFIX}"),
        calibration=tuple(map(str, plan.calibration)),
    )
