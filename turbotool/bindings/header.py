"""What a C header says of structs, functions and enums, as far as a caller from another language must know it.

It reads the plain C of llama.h and of ggml's headers: no bit fields, no arithmetic. A struct or a function that it
cannot read is left out, so that whoever needs it misses it, instead of being told something wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

POINTER, VOID, STRUCT = "pointer", "void", "struct "
# kinds of values: what a call passes in the same way is one kind, whatever its sign
PLAIN = {
    "bool": "bool",
    "char": "int8",
    "int8_t": "int8",
    "uint8_t": "int8",
    "int16_t": "int16",
    "uint16_t": "int16",
    "int": "int32",
    "int32_t": "int32",
    "uint32_t": "int32",
    "int64_t": "int64",
    "uint64_t": "int64",
    "size_t": "int64",
    "float": "float32",
    "double": "float64",
    "void": VOID,
}
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_MACRO = re.compile(r"\bDEPRECATED\s*\(")  # around a declaration
_STRUCT = re.compile(r"\bstruct\s+(\w+)\s*\{([^{}]*)\}")
_ENUM = re.compile(r"\benum\s+(\w+)\s*\{([^{}]*)\}")
_FUNCTION = re.compile(r"\b\w+_API\s+([^;(){}]+?)\b(\w+)\s*\(([^;{}()]*)\)")
_FUNCTION_TYPE = re.compile(r"\btypedef\s+[^;(){}]*\(\s*\*\s*(\w+)\s*\)")
_TYPEDEF = re.compile(r"\btypedef\s+([^;(){}]+?)\b(\w+)\s*;")
_DECLARATION = re.compile(r"(.*?)\b(\w+)\s*", re.DOTALL)
_FUNCTION_POINTER = re.compile(r"[^()]*\(\s*\*\s*(\w+)\s*\)\s*\([^()]*\)\s*")


@dataclass(frozen=True)
class Signature:
    """The kind of what a function returns, and those of what it takes."""

    result: str
    takes: tuple[str, ...]


@dataclass(frozen=True)
class Declarations:
    """Structs as fields in order with their kinds, functions by name, the values of enums by the enumerator's name."""

    structs: Mapping[str, Mapping[str, str]]
    functions: Mapping[str, Signature]
    values: Mapping[str, int]


def read_declarations(texts: Iterable[str]) -> Declarations:
    """What the headers say together: a type may be defined in another than the one that uses it."""
    text = "\n".join(_MACRO.sub(" ", _DIRECTIVE.sub("", _COMMENT.sub(" ", one))) for one in texts)
    types = _types(text)
    structs = {name: fields for name, body in _STRUCT.findall(text) if (fields := _fields(body, types))}
    functions = {
        name: found for result, name, takes in _FUNCTION.findall(text) if (found := _signature(result, takes, types))
    }
    values = {name: value for _, body in _ENUM.findall(text) for name, value in _values(body)}
    return Declarations(structs, functions, values)


def _types(text: str) -> dict[str, str]:
    """Kinds of the names that typedefs give."""
    types = {**PLAIN, **dict.fromkeys(_FUNCTION_TYPE.findall(text), POINTER)}
    for written, name in _TYPEDEF.findall(text):
        if kind := _kind(written, types):
            types.setdefault(name, kind)
    for name in re.findall(r"\}\s*(\w+)\s*;", text):
        types.setdefault(name, STRUCT + name)
    return types


def _kind(written: str, types: Mapping[str, str]) -> str | None:
    """The kind of a type as C writes it; None if it is none that is known."""
    if "*" in written:
        return POINTER
    words = [word for word in written.split() if word != "const"]
    if len(words) == 2 and words[0] in ("struct", "enum"):  # noqa: PLR2004 (the word and the name)
        return STRUCT + words[1] if words[0] == "struct" else PLAIN["int"]
    return types.get(words[0]) if len(words) == 1 else None


def _fields(body: str, types: Mapping[str, str]) -> dict[str, str] | None:
    """Name and kind of each field; None if one of them cannot be read."""
    fields: dict[str, str] = {}
    for declaration in filter(None, map(str.strip, body.split(";"))):
        if pointer := _FUNCTION_POINTER.fullmatch(declaration):
            fields[pointer[1]] = POINTER
            continue
        match = _DECLARATION.fullmatch(declaration)
        kind = _kind(match[1], types) if match else None
        if not match or kind is None or kind == VOID:
            return None
        fields[match[2]] = kind
    return fields


def _signature(result: str, takes: str, types: Mapping[str, str]) -> Signature | None:
    kinds = [_kind(result, types), *(_parameter(one.strip(), types) for one in takes.split(","))]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    first, *rest = known
    return Signature(first, () if rest == [VOID] else tuple(rest))


def _parameter(written: str, types: Mapping[str, str]) -> str | None:
    """The kind of a parameter, with its name or without one."""
    if whole := _kind(written, types):
        return whole
    match = _DECLARATION.fullmatch(written)
    return _kind(match[1], types) if match else None


def _values(body: str) -> Iterator[tuple[str, int]]:
    """Enumerators with a value that is written as a number, or that follows from the one before."""
    following: int | None = 0
    for one in filter(None, map(str.strip, body.split(","))):
        name, equals, written = map(str.strip, one.partition("="))
        if equals:
            following = int(written, 0) if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)", written) else None
        if following is not None:
            yield name, following
            following += 1
