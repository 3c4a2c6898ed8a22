"""What came of several models, as one JSON document: of each what `turbotool eval --json` tells, or why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from turbotool.errors import BinaryFailed, ConfigurationMismatch, ResultError, TurbotoolError, first_line
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.measure.work import verdict
from turbotool.evaluation.report import document as evaluation_document
from turbotool.evaluation.report.document import path_names, shareable
from turbotool.evaluation.report.fields import (
    BinariesFields,
    CacheFields,
    CellFields,
    ControlFields,
    CorpusFields,
    EvalDocument,
    EvalSettings,
    RecommendationFields,
    ResolutionFields,
    VerdictFields,
)
from turbotool.evaluation.sweep import Sweep
from turbotool.report.private import without_folders
from turbotool.system import documents as system_documents
from turbotool.system.documents import ErrorFields, error_fields
from turbotool.system.machine import Machine


@dataclass(frozen=True)
class Failed:
    """A model of which nothing could be measured, and why."""

    sweep: Sweep
    error: TurbotoolError


ModelOutcome = Evaluation | Failed


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """The file of a model; there is no hash of one that could not be measured."""

    path: str | UnsetType = UNSET
    name: str
    sha256: str | UnsetType = UNSET


@dataclass(frozen=True)
class FailedModel:
    """A model of which nothing could be measured, as documents have it."""

    ok: bool
    model: NamedFile
    error: ErrorFields


ModelDocument = EvalDocument | FailedModel


@dataclass(frozen=True)
class ModelFields:
    """One of several models: all that `turbotool eval --json` tells of it, or, if it could not be measured, the error.

    A document cannot say that a part is of one type or of another; so what only one of them has may be missing.
    """

    ok: bool
    model: NamedFile
    binaries: BinariesFields | UnsetType = UNSET
    corpora: tuple[CorpusFields, ...] | UnsetType = UNSET
    settings: EvalSettings | UnsetType = UNSET
    machine: Machine | UnsetType = UNSET
    command: str | UnsetType = UNSET
    plan: str | UnsetType | None = UNSET
    units: dict[str, str] | UnsetType = UNSET
    cells: tuple[CellFields, ...] | UnsetType = UNSET
    left_out: tuple[CacheFields, ...] | UnsetType = UNSET
    controls: ControlFields | UnsetType = UNSET
    verdicts: VerdictFields | UnsetType = UNSET
    recommendation: RecommendationFields | UnsetType = UNSET
    resolution: ResolutionFields | UnsetType = UNSET
    log: str | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET


@system_documents.document("models", error=ResultError)
@dataclass(frozen=True)
class ModelsDocument:
    """Evaluations of several models, in the order in which they were named, and the command that repeats them."""

    ok: bool
    command: str
    models: tuple[ModelFields, ...]
    error: ErrorFields | UnsetType = UNSET


def document(each: Sequence[ModelDocument], command: str) -> ModelsDocument:
    """The document of `turbotool eval --json` with several models."""
    return ModelsDocument(all(one.ok for one in each), command, tuple(map(_fields, each)))


def _fields(one: ModelDocument) -> ModelFields:
    return ModelFields(**{**vars(one), "model": NamedFile(**vars(one.model))})


def documents(found: Sequence[ModelOutcome]) -> list[ModelDocument]:
    """What is told of each model."""
    return [evaluation_document.document(one) if isinstance(one, Evaluation) else _failed(one) for one in found]


def shared(found: Sequence[ModelOutcome]) -> list[ModelDocument]:
    """The same without folders of this machine."""
    return [shareable(one) if isinstance(one, Evaluation) else _shared(one) for one in found]


def _failed(one: Failed) -> FailedModel:
    path = one.sweep.model.path
    return FailedModel(False, NamedFile(path=str(path), name=path.name), error_fields(one.error))


def _shared(one: Failed) -> FailedModel:
    """Its hint names a log, or another file, of this machine."""
    told = error_fields(one.error)
    told["message"], told["hint"] = without_folders(one.error.message, path_names(one.sweep)), None
    return FailedModel(False, NamedFile(name=one.sweep.model.path.name), told)


def failure(found: Sequence[ModelOutcome]) -> TurbotoolError | None:
    """The error that the command ends with: None if everything was measured."""
    ends = [(one.sweep.model.path.name, _error(one)) for one in found]
    errors = [(name, error) for name, error in ends if error]
    if len(errors) <= 1:
        return next((error for _, error in errors), None)
    named = "; ".join(f"{name}: {first_line(error.message)}" for name, error in errors)
    message = f"{len(errors)} of {len(found)} models could not be measured in full: {named}"
    hint = f"read {found[0].sweep.runner.log}"
    if any(isinstance(error, ConfigurationMismatch) for _, error in errors):
        return ConfigurationMismatch(message, hint=hint)
    return BinaryFailed(message, how="failed models", hint=hint)


def _error(one: ModelOutcome) -> TurbotoolError | None:
    return verdict(one.ledger, one.sweep.runner.log) if isinstance(one, Evaluation) else one.error
