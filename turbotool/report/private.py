"""What is shown to others names no folder of this machine, neither in a field of its own nor within a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from turbotool.errors import first_line

PRIVATE = frozenset({"bin_dir", "log", "path"})  # fields that hold a folder of this machine
T = TypeVar("T")


def shareable(document: T, names: Mapping[str, str]) -> T:
    """A document, or a part of one, without its private fields, which can be UNSET, and with its texts made shareable.

    `names` are what stands in place of paths, see `without_folders`.
    """
    shared: T = _shared(document, names)
    return shared


def _shared(value: Any, names: Mapping[str, str]) -> Any:
    from msgspec import UNSET

    if is_dataclass(value) and not isinstance(value, type):
        found = {one.name: getattr(value, one.name) for one in fields(value)}
        return replace(value, **{name: UNSET if name in PRIVATE else _shared(found[name], names) for name in found})
    if isinstance(value, Mapping):
        return {name: _shared(item, names) for name, item in value.items() if name not in PRIVATE}
    if isinstance(value, list | tuple):
        return type(value)(_shared(item, names) for item in value)
    return without_folders(value, names) if isinstance(value, str) else value


def without_folders(text: str, names: Mapping[str, str]) -> str:
    """The first line of a text, with a name in place of each path that is known, longer ones first."""
    found = first_line(text)
    for path in sorted(names, key=len, reverse=True):
        found = found.replace(path, names[path])
    return found
