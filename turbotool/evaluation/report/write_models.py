"""The report of several models: one table of all of them, and beside it a folder with the report of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.report.document import HTML_NAME
from turbotool.evaluation.report.models import (
    Document,
    ModelOutcome,
    comma_separated,
    conclusions,
    kld_table,
    ppl_table,
    shared,
)
from turbotool.evaluation.report.write import write_report
from turbotool.report.html import render
from turbotool.report.table import markdown_lines
from turbotool.system.files import out_of_space, write_file

JSON_NAME, CSV_NAME, MARKDOWN_NAME, PAGE_NAME = "models.json", "models.csv", "models.md", "models.html"
TITLE = "KV cache quality of several models"
KLD_NOTE = "Mean KLD against f16 in nats. The word tells a rotation from none, chunk by chunk on the same text."
PPL_NOTE = "The word tells a cell from f16, chunk by chunk; a perplexity below that of f16 is no gain."


def write_reports(folder: Path, found: Sequence[ModelOutcome], command: str) -> None:
    """Write `models.*` and, in a folder for each model that was measured, its own report. Raises NoSpace."""
    each, folders = shared(found), names(found)
    for number, name in folders.items():
        one = found[number]
        assert isinstance(one, Evaluation)  # noqa: S101 (only those have names)
        try:
            (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise out_of_space(error, folder / name) from error
        write_report(folder / name, one)
    text = json.dumps({"command": command, "models": each}, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / JSON_NAME, text.encode())
    write_file(folder / CSV_NAME, comma_separated(each).encode())
    write_file(folder / MARKDOWN_NAME, markdown(each, command).encode())
    write_file(folder / PAGE_NAME, page(each, folders, command).encode())


def names(found: Sequence[ModelOutcome]) -> Mapping[int, str]:
    """The folder of each model that was measured: its file's name, with a number where two have the same."""
    folders: dict[int, str] = {}
    for number, one in enumerate(found):
        if isinstance(one, Evaluation):
            stem = one.sweep.model.path.stem
            folders[number] = f"{stem}-{number + 1}" if stem in folders.values() else stem
    return folders


def markdown(each: Sequence[Document], command: str) -> str:
    """The report for people who read text."""
    parts = [f"# {TITLE}", f"```sh\n{command}\n```", "\n".join(f"- {line}" for line in conclusions(each))]
    parts += ["## KLD", KLD_NOTE, markdown_lines(kld_table(each)), "## Perplexity", PPL_NOTE]
    return "\n\n".join([*parts, markdown_lines(ppl_table(each))]) + "\n"


def page(each: Sequence[Document], folders: Mapping[int, str], command: str) -> str:
    """The same as a page that links to those of the models."""
    return render(
        __package__,
        "models.html.j2",
        title=TITLE,
        conclusions=[
            (line, f"{quote(folders[number])}/{HTML_NAME}" if number in folders else "")
            for number, line in enumerate(conclusions(each))
        ],
        kld_note=KLD_NOTE,
        kld=kld_table(each),
        ppl_note=PPL_NOTE,
        ppl=ppl_table(each),
        command=command,
    )
