"""What is shown to others: no private field, no folder of ours in a text."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from turbotool.report.private import shareable, without_folders

NAMES = {"/home/me": "HOME", "/home/me/models/a.gguf": "a.gguf", "/home/me/bin": "BIN_DIR"}


@dataclass(frozen=True, kw_only=True)
class Part:
    path: str | UnsetType = UNSET
    name: str
    size: float | None


@dataclass(frozen=True, kw_only=True)
class Whole:
    log: str | UnsetType = UNSET
    parts: tuple[Part, ...]
    notes: dict[str, str]


def test_private_fields_are_gone_and_paths_have_their_names_at_any_depth() -> None:
    parts = (
        Part(path="/home/me/x", name="/home/me/models/a.gguf of /home/me/bin", size=1.5),
        Part(name="b", size=None),
    )
    found = Whole(log="/home/me/log", parts=parts, notes={"bin_dir": "/home/me/bin", "command": "/home/me/bin/x"})
    assert shareable(found, NAMES) == Whole(
        parts=(Part(name="a.gguf of BIN_DIR", size=1.5), Part(name="b", size=None)), notes={"command": "BIN_DIR/x"}
    )


def test_builtins_are_made_shareable_alike() -> None:
    found = {"path": "/home/me/x", "list": ["/home/me/bin", 3, None, True], "pair": ("a", {"log": "x", "k": "v"})}
    assert shareable(found, NAMES) == {"list": ["BIN_DIR", 3, None, True], "pair": ("a", {"k": "v"})}


def test_of_a_text_the_first_line_is_kept_and_longer_paths_are_named_first() -> None:
    assert without_folders("no /home/me/models/a.gguf in /home/me\nbacktrace", NAMES) == "no a.gguf in HOME"
