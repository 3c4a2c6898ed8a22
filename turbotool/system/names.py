"""What a mistyped name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question, after a semicolon, with the nearest known name, case aside, or '' if none is near."""
    import difflib

    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
