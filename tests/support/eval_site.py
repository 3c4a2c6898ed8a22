"""A folder in which `turbotool eval` measures with fake programs, and a small sweep whose figures are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, typed
from fake_eval import eval_programs, eval_runs
from tiny_gguf import gguf, write

KV = ("--kv", "q8_0,q8_0/turbo4", "--rotation", "off,v", "--chunks", "4")
CELLS = [("q8_0", "q8_0", "off"), ("q8_0", "q8_0", "v"), ("q8_0", "turbo4", "off"), ("q8_0", "turbo4", "v")]
HOSTILE = """<script>alert('1' & "2")&lt;$x"""  # a name that would become markup in a careless page
REPORT_FILES = ["eval.csv", "eval.html", "eval.json", "eval.md"]


def cells_of(done: Done) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By K type, V type and rotation."""
    return {(cell["k"], cell["v"], cell["rotation"]): cell for cell in done.document["cells"]}


def make_eval_folder(folder: Path, **behaviour: object) -> list[Path | str]:
    """Write a model, a text and fake programs; returns the words that name them to `turbotool eval`."""
    write(folder, gguf())
    (folder / "text.txt").write_text("word " * 5000)
    eval_programs(folder / "bin", **behaviour)
    return [folder / "model.gguf", "--corpus", folder / "text.txt", "--bin-dir", folder / "bin"]


@dataclass(frozen=True)
class EvalSite:
    """A folder with a model, a text, programs and a work folder, and the command line in it."""

    folder: Path
    named: list[Path | str]
    capsys: pytest.CaptureFixture[str]

    def words(self, *words: str | Path) -> list[str]:
        return ["eval", *map(str, [*self.named, *words])]

    def eval(self, *words: str | Path) -> Done:
        return typed(self.words(*words), self.capsys)

    @property
    def work(self) -> Path:
        return self.folder / "work" / "build" / "eval"

    def measured(self, what: str = "cell") -> list[str]:
        return [one["cell"] for one in eval_runs(self.folder) if one["what"] == what]
