"""Documents: what other programs and later runs read. Each is a frozen dataclass with a name and a version.

`@document` gives a dataclass its name and version; a document begins with both, as `schema` and `version`. There is one
reader, `decode`: a field that is missing, of another type, or of a newer version is an error of one line that names the
field. Fields are added, never renamed; a reader passes over those that it does not know. What is not finite is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

from turbotool.errors import DocumentError, TurbotoolError
from turbotool.report.document import finite

PREFIX = "turbotool."
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What a document is: its name without the prefix, the version of its form, and the error of one that is not it."""

    name: str
    version: int
    error: type[TurbotoolError]
    of: type

    @property
    def schema(self) -> str:
        return PREFIX + self.name

    @property
    def header(self) -> dict[str, object]:
        return {"schema": self.schema, "version": self.version}


KINDS: dict[str, Kind] = {}  # by name, filled as the modules that define documents are imported


def document(
    name: str, version: int = 1, *, error: type[TurbotoolError] = DocumentError
) -> Callable[[type[T]], type[T]]:
    """Make a frozen dataclass a document of that name. A change that an old reader cannot take has a new version."""

    def register(of: type[T]) -> type[T]:
        kind = Kind(name, version, error, of)
        known = KINDS.setdefault(name, kind)
        assert known.of.__qualname__ == of.__qualname__, f"two documents are called {name}"  # noqa: S101 (a slip of ours)
        of.__document__ = kind  # type: ignore[attr-defined]
        return of

    return register


# `class` is no name that a field of a class can have
_Named = TypedDict("_Named", {"class": str, "code": int, "message": str, "hint": "str | None"})


class ErrorFields(_Named, total=False):
    """The `error` of any document: what a command ended with. Where a patch does not apply, `report` says how."""

    report: dict[str, Any] | None


@document("error")
@dataclass(frozen=True)
class ErrorDocument:
    """What a command prints that ended before it had anything else to tell."""

    ok: bool
    error: ErrorFields


def error_fields(error: TurbotoolError) -> ErrorFields:
    """An error as a document holds it."""
    return cast(ErrorFields, error.as_json())


def kind_of(what: object) -> Kind:
    """The kind of a document or of its class."""
    kind: Kind = what.__document__  # type: ignore[attr-defined]
    return kind


def plain(value: object) -> Any:
    """A dataclass, or a part of a document, as JSON has it: fields that are UNSET left out, null for nan."""
    import msgspec

    return finite(msgspec.to_builtins(value, str_keys=True, enc_hook=str))


def as_builtins(value: object) -> dict[str, Any]:
    """A document as JSON has it, `schema` and `version` first."""
    return {**kind_of(value).header, **plain(value)}


def encode(value: object, *, indent: int | None = 2) -> bytes:
    """A document as the bytes of a file. What is no UTF-8, as in a path, becomes an escape that reads back the same."""
    text = f"{json.dumps(as_builtins(value), indent=indent, ensure_ascii=False)}\n"
    return text.encode(errors="backslashreplace")


def decode(data: bytes | str, of: type[T], where: str | Path, *, hint: str | None = None) -> T:
    """The document in `data`, which stands at `where`.

    Raises the error of its kind, in one line: no JSON, another document, a newer version, a field that is missing or of
    another type.
    """
    return convert(parse(data, of, where, hint=hint), of, where, hint=hint)


def parse(data: bytes | str, of: type[T], where: str | Path, *, hint: str | None = None) -> object:
    """The JSON in `data`, for `convert`. Raises the error of the document `of` if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise kind_of(of).error(f"{where} is not JSON: {error}", hint=hint) from error


def convert(fields: object, of: type[T], where: str | Path, *, hint: str | None = None) -> T:
    """The document that was read as `fields`, from JSON or from TOML. Raises as `decode` does."""
    import msgspec

    kind = kind_of(of)
    if not isinstance(fields, Mapping):
        raise kind.error(f"{where} is no {kind.schema} document: it is no object with fields", hint=hint)
    _check_header(fields, kind, where, hint)
    try:
        found: T = msgspec.convert(dict(fields), of, strict=True)
    except msgspec.ValidationError as error:
        raise kind.error(
            f"{where} is no {kind.schema} document of version {kind.version}: {error}", hint=hint
        ) from error
    except UnicodeEncodeError as error:  # msgspec wants the names of fields as UTF-8, JSON can escape what is none
        raise kind.error(f"{where} is no {kind.schema} document: a field's name is no text", hint=hint) from error
    return found


def _check_header(fields: Mapping[str, object], kind: Kind, where: str | Path, hint: str | None) -> None:
    schema, version = fields.get("schema"), fields.get("version")
    if schema != kind.schema:
        has = f"its schema is {schema!r}" if "schema" in fields else "it names no schema"
        raise kind.error(f"{where} is no {kind.schema} document: {has}", hint=hint)
    if isinstance(version, bool) or not isinstance(version, int):
        raise kind.error(f"{where} is no {kind.schema} document: its version is {version!r}", hint=hint)
    if version > kind.version:
        message = f"{where} is of version {version} of {kind.schema}, newer than {kind.version} of this turbotool"
        raise kind.error(message, hint="use the newer turbotool")
    if version < kind.version:
        message = f"{where} is of version {version} of {kind.schema}, older than {kind.version} of this turbotool"
        raise kind.error(message, hint=hint)


def read(path: Path, of: type[T], *, hint: str | None = None) -> T:
    """The document in a file. Raises as `decode` does, also for a file that cannot be read."""
    return convert(load(path, of, hint=hint), of, path, hint=hint)


def load(path: Path, of: type, *, hint: str | None = None) -> object:
    """The JSON in a file that should hold such a document, for `convert`. Raises the error of its kind."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise kind_of(of).error(f"cannot read {path}: {error.strerror}", hint=hint) from error
    return parse(data, of, path, hint=hint)


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a kind of document, as it is published."""
    import msgspec

    (found,), parts = msgspec.json.schema_components([kind.of], ref_template="#/$defs/{name}")
    for part in parts.values():
        part["description"] = " ".join(part.get("description", "").split())
    top = parts.pop(found["$ref"].rpartition("/")[2])
    header = {"schema": {"const": kind.schema}, "version": {"const": kind.version}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.schema,
        "description": top["description"],
        "type": "object",
        "properties": {**header, **top.get("properties", {})},
        "required": ["schema", "version", *top.get("required", [])],
        **({"$defs": parts} if parts else {}),
    }
