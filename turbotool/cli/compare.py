"""`turbotool eval compare`: two result sets side by side."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.eval import equal_options
from turbotool.cli.options import session_options
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("a", metavar="A", type=PATH)
@click.argument("b", metavar="B", type=PATH)
@click.option("--report", "folder", type=PATH, metavar="DIR", help="Write compare.md and compare.json.")
@equal_options
@session_options
def compare(
    a: Path, b: Path, folder: Path | None, equal_kld: float, equal_ppl: float, equal_top: float, session: Session
) -> None:
    """Set the results A and B of two builds or two machines side by side.

    Each is a document that `turbotool eval --json` printed, or the folder of its --report. Cells are matched by text,
    cache, calibration and rotation; each statistic is told with its difference B - A and, where chance can be judged,
    whether it is at least so much, equal within a bound, or unresolved. With -v every statistic is listed; documents
    and reports always have all of them.
    """
    from turbotool.evaluation.compare.contrast import contrast
    from turbotool.evaluation.compare.document import document
    from turbotool.evaluation.compare.report import READING, summary, text, told, write_report
    from turbotool.evaluation.compare.results import read_results
    from turbotool.evaluation.judge.finding import Equivalence
    from turbotool.evaluation.judge.stats import require_scipy
    from turbotool.system.files import writable_folder

    require_scipy()
    found = contrast(read_results(a), read_results(b), Equivalence(equal_kld, equal_ppl, equal_top))
    if folder:
        writable_folder(folder)
        write_report(folder, found)
    session.out.result("\n".join(told(found)))
    session.out.result(f"\n{text(found, everything=bool(session.out.verbose))}\n\n{summary(found)}\n{READING}")
    if folder:
        session.out.say(f"report: {folder}")
    session.out.document(document(found))
