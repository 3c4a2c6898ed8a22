"""Draw docs/images/packages.svg from the imports of turbotool: `python ci/architecture.py`; `--check` only compares.

A line says that a package imports another one, anywhere in its code. What follows from two lines is not drawn, and what
does not go down is red.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import svg

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "turbotool"
PICTURE = ROOT / "docs" / "images" / "packages.svg"

# Layer by layer from the top: each package with its column and what it is for. One may import only what is below it.
LAYERS: tuple[dict[str, tuple[float, str]], ...] = (
    {"cli": (2.5, "the commands")},
    {"pin": (0, "move the pin"), "fetch": (2, "take a release"), "serve": (4, "run a server")},
    {
        "verify": (0, "prove binaries"),
        "doctor": (1, "what is here"),
        "release": (2, "archives"),
        "evaluation": (3, "quality"),
        "bench": (4, "speed"),
        "calibration": (5, "means, scales"),
        "memory": (6, "what fits"),
        "bindings": (7, "for Python"),
    },
    {"programs": (2, "run binaries")},
    {"kv": (4, "cache types")},
    {"build": (2, "compile"), "inputs": (4, "models, texts")},
    {"series": (2, "the patches")},
    {"upstream": (2, "the lock")},
    {"system": (2, "files, git")},
    {"report": (6, "tables, pages")},
    {"errors": (1.5, "exit codes"), "layout": (2.5, "where things are")},
)
COLUMN, ROW = 116, 62
BOX_WIDTH, BOX_HEIGHT = 104, 40
MARGIN = 8
COLOURS = (svg.BLUE, svg.GREEN, svg.AMBER)
BEFORE_CODE = ("__init__", "__main__")

Imports = Mapping[str, frozenset[str]]


def imports(package: Path) -> Imports:
    """What each package and top-level module of `package` imports of the others."""
    names = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    names |= {path.parent.name for path in package.glob("*/*.py")}
    names -= set(BEFORE_CODE)
    found = {}
    for name in sorted(names):
        files = sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / f"{name}.py"]
        used = {word for file in files for word in _imported(file, package.name)}
        found[name] = frozenset(used & names - {name})
    return found


def _imported(file: Path, package: str) -> Iterator[str]:
    """The first word behind `package.` of each import in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        paths: list[str] = []
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        for path in paths:
            first, _, rest = path.partition(".")
            if first == package:
                yield rest.partition(".")[0]


def against(found: Imports) -> list[tuple[str, str]]:
    """The imports that do not go down. Raises SystemExit for a package without a place."""
    rows = places()
    if lost := sorted(found.keys() - rows.keys()):
        raise SystemExit(f"no place in LAYERS of ci/architecture.py: {', '.join(lost)}")
    edges = [(name, other) for name, used in sorted(found.items()) for other in sorted(used)]
    return [(name, other) for name, other in edges if rows[other] <= rows[name]]


def places() -> dict[str, int]:
    """The layer of each package, 0 at the top."""
    return {name: row for row, layer in enumerate(LAYERS) for name in layer}


def reduced(found: Imports) -> list[tuple[str, str]]:
    """The imports that go down and do not follow from two others."""
    up = set(against(found))
    down = {name: frozenset(other for other in used if (name, other) not in up) for name, used in found.items()}
    edges = []
    for name, used in sorted(down.items()):
        implied = {far for near in used for far in _reached(near, down)}
        edges += [(name, other) for other in sorted(used - implied)]
    return edges


def _reached(name: str, found: Imports) -> set[str]:
    direct = found.get(name, frozenset())
    return set(direct).union(*(_reached(other, found) for other in direct))


def draw(found: Imports) -> str:
    """The picture, as the text of a file."""
    wrong = against(found)
    columns = {name: column for layer in LAYERS for name, (column, _) in layer.items()}
    taken = {(columns[name], row) for name, row in places().items() if name in found}
    parts = [_line(columns, taken, name, other) for name, other in reduced(found)]
    parts += [_wrong_line(columns, name, other) for name, other in wrong]
    for row, layer in enumerate(LAYERS):
        for name, (column, about) in layer.items():
            if name in found:
                parts += _box(column, row, name, about)
    width = 2 * MARGIN + COLUMN * max(columns.values()) + BOX_WIDTH
    height = 2 * MARGIN + ROW * (len(LAYERS) - 1) + BOX_HEIGHT
    return svg.picture(width, height, "The packages of turbotool, and which imports which", parts)


def _box(column: float, row: int, name: str, about: str) -> list[str]:
    left, top = MARGIN + COLUMN * column, MARGIN + ROW * row
    colour = COLOURS[row % len(COLOURS)]
    frame = svg.tag(
        "rect", x=left, y=top, width=BOX_WIDTH, height=BOX_HEIGHT, rx=5, fill=colour, fill_opacity=".12", stroke=colour
    )
    middle = left + BOX_WIDTH / 2
    word = svg.text(middle, top + 17, name, text_anchor="middle", font_weight="600", fill=colour)
    return [frame, word, svg.text(middle, top + 32, about, text_anchor="middle", font_size="11")]


def _line(columns: Mapping[str, float], taken: set[tuple[float, int]], name: str, other: str) -> str:
    """From the lower edge of a box to the upper edge of another: it bends where it then meets no box."""
    start, end = places()[name], places()[other]
    x, y = MARGIN + COLUMN * columns[name] + BOX_WIDTH / 2, MARGIN + ROW * start + BOX_HEIGHT
    to_x, to_y = MARGIN + COLUMN * columns[other] + BOX_WIDTH / 2, MARGIN + ROW * end
    gap = ROW - BOX_HEIGHT
    between = range(start + 1, end)
    late = any((columns[other], row) in taken for row in between)
    bend = to_y - gap if late else y
    curve = [svg.number(value) for value in (bend + gap / 2, bend + gap / 2, bend + gap)]
    path = f"M{svg.number(x)} {svg.number(y)}V{svg.number(bend)}"
    path += f"C{svg.number(x)} {curve[0]} {svg.number(to_x)} {curve[1]} {svg.number(to_x)} {curve[2]}"
    return svg.tag("path", d=f"{path}V{svg.number(to_y)}", fill="none", stroke=svg.INK, stroke_opacity=".8")


def _wrong_line(columns: Mapping[str, float], name: str, other: str) -> str:
    """From below one box to below the other, in red."""
    (x, y), (to_x, to_y) = (
        (MARGIN + COLUMN * columns[one] + BOX_WIDTH / 2, MARGIN + ROW * places()[one] + BOX_HEIGHT)
        for one in (name, other)
    )
    numbers = [svg.number(value) for value in (x, y, x, y + ROW / 2, to_x, to_y + ROW / 2, to_x, to_y)]
    path = f"M{numbers[0]} {numbers[1]}C{' '.join(numbers[2:])}"
    return svg.tag("path", d=path, fill="none", stroke=svg.RED, stroke_width=2, stroke_dasharray="5 4")


def made() -> str:
    """What docs/images/packages.svg must hold."""
    return draw(imports(PACKAGE))


if __name__ == "__main__":
    svg.keep(PICTURE, made(), __doc__)
