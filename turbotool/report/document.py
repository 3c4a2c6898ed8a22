"""Values as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def finite(value: object) -> object:
    """The value with None for nan and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None) -> float | None:
    """A figure as JSON has it: None if there is none, or none that is finite."""
    return value if value is not None and math.isfinite(value) else None


def rounded(value: float | None, digits: int) -> float | None:
    """The same with that many significant digits."""
    return None if number(value) is None else float(f"{value:.{digits}g}")
