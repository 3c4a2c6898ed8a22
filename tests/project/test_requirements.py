"""A library that a command asks for by hand is asked for as pyproject.toml does, in the extra that is named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tomlkit

from turbotool.evaluation.measure.cluster import REQUIREMENT

ROOT = Path(__file__).parents[2]
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()["project"]


def asked() -> Iterator[tuple[str, str]]:
    """The requirement and the extra of each call of `require_library`."""
    for path in (ROOT / "turbotool").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("require_library"):
                words, extra = (ast.unparse(argument) for argument in node.args[:2])
                yield REQUIREMENT if words == "REQUIREMENT" else ast.literal_eval(words), ast.literal_eval(extra)


def test_what_is_asked_for_by_hand_is_what_the_extra_installs() -> None:
    found = list(asked())
    assert len(found) > 5
    assert [(words, extra) for words, extra in found if words not in PROJECT["optional-dependencies"][extra]] == []
