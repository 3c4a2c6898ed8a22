"""`turbotool eval compare`: two result sets side by side."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.options import output_options, prepare_folder
from turbotool.system.output import Output

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("a", metavar="A", type=PATH)
@click.argument("b", metavar="B", type=PATH)
@click.option("--report", "folder", type=PATH, metavar="DIR", help="Write compare.md and compare.json.")
@output_options
def compare(a: Path, b: Path, folder: Path | None, out: Output) -> None:
    """Set the results A and B of two builds or two machines side by side.

    Each is a document that `turbotool eval --json` printed, or the folder of its --report. Cells are matched by text,
    cache and rotation; each statistic is told with its difference B - A and, where chance can be judged, whether that
    is within noise. With -v every statistic is listed; documents and reports always have all of them.
    """
    from turbotool.evaluation.compare.contrast import contrast
    from turbotool.evaluation.compare.report import READING, document, summary, text, told, write_report
    from turbotool.evaluation.compare.results import read_results
    from turbotool.evaluation.judge.stats import require_scipy

    require_scipy()
    found = contrast(read_results(a), read_results(b))
    if folder:
        prepare_folder(folder)
        write_report(folder, found)
    out.say("\n".join(told(found)))
    out.say(f"\n{text(found, everything=bool(out.verbose))}\n\n{summary(found)}\n{READING}")
    if folder:
        out.say(f"report: {folder}")
    out.document(document(found))
