"""Pictures as SVG that reads on white and on black: no background, colours of middle brightness, no font of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

INK = "#808080"
BLUE, GREEN, AMBER, RED = "#3b82f6", "#2f9e68", "#d97706", "#d6455d"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def number(value: float) -> str:
    """At most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")


def tag(name: str, inside: str = "", **attributes: float | str) -> str:
    """An element; `stroke_width` becomes stroke-width."""
    words = []
    for key, value in attributes.items():
        text = value if isinstance(value, str) else number(value)
        words.append(f" {key.replace('_', '-')}={quoteattr(text)}")
    return f"<{name}{''.join(words)}>{inside}</{name}>" if inside else f"<{name}{''.join(words)}/>"


def text(x: float, y: float, words: str, **attributes: float | str) -> str:
    """A line of letters, in grey unless `fill` says otherwise."""
    return tag("text", escape(words), **{"x": x, "y": y, "fill": INK, **attributes})


def picture(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """The whole file, an element a line; `title` is what a reader without eyes gets."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" '
        f'width="{number(width)}" height="{number(height)}" role="img" font-family={quoteattr(FONT)} font-size="13">'
    )
    return "\n".join([opening, tag("title", escape(title)), *parts, "</svg>"]) + "\n"


def keep(picture: Path, made: str, about: str | None) -> None:
    """The command of a program that draws one picture: write it, or with `--check` only say whether it differs."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the picture differs")
    if not parser.parse_args().check:
        picture.write_text(made, encoding="utf-8", newline="\n")
    elif not picture.is_file() or picture.read_text(encoding="utf-8") != made:
        raise SystemExit(f"{picture.name} is not up to date: python ci/{Path(parser.prog).name}")
