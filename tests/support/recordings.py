"""What real programs printed, and figures that were published."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


def recorded(name: str) -> str:
    """The text of a file in tests/data."""
    return (DATA / name).read_text(encoding="utf-8")
