"""Three factual prompts, and which answers to them are right."""

from __future__ import annotations

import re
from collections.abc import Callable

WARM = ("red", "orange", "yellow", "pink", "brown", "gold", "magenta")
COLD = ("green", "blue", "purple", "violet", "indigo", "cyan", "teal", "silver", "white", "black", "gray", "grey")
COLOURS = frozenset((*WARM, *COLD))
COLOURS_ASKED = 3


def is_paris(answer: str) -> bool:
    return "paris" in answer.lower()


def is_four(answer: str) -> bool:
    return bool(re.search(r"\bfour\b|\b4\b", answer.lower()))


def has_three_colours(answer: str) -> bool:
    return len(COLOURS & set(re.findall(r"[a-z]+", answer.lower()))) >= COLOURS_ASKED


PROMPTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("The capital of France is", is_paris),
    ("Two plus two equals", is_four),
    ("List three colors:", has_three_colours),
)
