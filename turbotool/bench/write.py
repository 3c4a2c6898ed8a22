"""The report of a benchmark: a folder with bench.json, bench.md and bench.svg that names no folder of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.bench.document import Subject, path_names, shareable
from turbotool.bench.figures import BenchCell, make_cells
from turbotool.bench.plan import BenchPlan
from turbotool.bench.rounds import BenchLedger
from turbotool.bench.table import TITLES, markdown_table, of_kind
from turbotool.programs.llamabench import DECODE, PREFILL
from turbotool.report.private import without_folders
from turbotool.report.table import markdown_lines
from turbotool.system.documents import encode
from turbotool.system.files import remove, write_file
from turbotool.system.machine import describe

JSON_NAME = "bench.json"
MARKDOWN_NAME = "bench.md"
PLOT_NAME = "bench.svg"
READING = {
    PREFILL: "Tokens of a prompt, processed together, after the *depth* tokens that the cache already holds.",
    DECODE: "Tokens generated one after the other, after the *depth* tokens that the cache already holds. "
    "*ns per cached token* is what each of those adds to the time of one token.",
}


@dataclass(frozen=True)
class BenchReport:
    """Where a benchmark is written to; `plot` says whether it is also drawn."""

    folder: Path
    subject: Subject
    plot: bool

    def begin(self) -> None:
        """Remove the report of another run from the folder."""
        for name in (JSON_NAME, MARKDOWN_NAME, PLOT_NAME):
            remove(self.folder / name)

    def save(self, ledger: BenchLedger) -> None:
        """Write what was measured so far, as JSON."""
        write_file(self.folder / JSON_NAME, encode(shareable(self.subject, ledger)))

    def finish(self, ledger: BenchLedger) -> None:
        """Write all of it."""
        self.save(ledger)
        cells = make_cells(self.subject.plan, ledger)
        write_file(self.folder / MARKDOWN_NAME, markdown(self.subject, ledger, cells, plot=self.plot).encode())
        if self.plot:
            from turbotool.bench.plot import draw

            write_file(self.folder / PLOT_NAME, draw(cells, title(self.subject.plan)))


def title(plan: BenchPlan) -> str:
    return f"KV cache speed of {plan.model.path.name}"


def markdown(subject: Subject, ledger: BenchLedger, cells: Sequence[BenchCell], *, plot: bool) -> str:
    """The report for people: what was run on what, a table for each phase, what is missing and why."""
    parts = [f"# {title(subject.plan)}", f"```sh\n{subject.command}\n```", _facts(subject, ledger)]
    if plot:
        parts.append(f"![Tokens per second over depth]({PLOT_NAME})")
    for kind, heading in TITLES.items():
        found = of_kind(cells, kind)
        if found:
            parts += [f"## {heading} ({found[0].phase})", READING[kind], markdown_table(found)]
    parts += _missing(subject.plan, ledger)
    return "\n\n".join(parts) + "\n"


def _facts(subject: Subject, ledger: BenchLedger) -> str:
    plan, machine = subject.plan, subject.machine
    builds = [
        (f"build *{build.name}*", f"commit `{build.warm.commit}`" + (f", tree `{tree}`" if tree else ""))
        for build in plan.builds
        for tree in [build.runner.binaries.tree]
    ]
    gpu = plan.builds[0].warm.gpu
    rows = [
        ("model", f"`{plan.model.path.name}`"),
        *builds,
        ("machine", describe(machine)),
        *([("GPU", gpu)] if gpu else []),
        ("load before", "unknown" if machine.load is None else f"{machine.load:.2f}"),
        ("rounds", f"{ledger.rounds} of {plan.settings.rounds}; median (minimum–maximum) over them"),  # noqa: RUF001
        ("ratios", "taken within a round, then their median; above 1 is faster"),
        ("flash attention", "on"),
        ("calibration", _calibration(plan)),
        ("rotation of K and V", "off (`LLAMA_ATTN_ROT_DISABLE=1`), on every build"),
    ]
    return markdown_lines([("", ""), *rows])


def _calibration(plan: BenchPlan) -> str:
    """By which words, and where there is none."""
    told = ", ".join(map(str, plan.settings.calibrations))
    none = [build.name for build in plan.builds if build.calibrated is None]
    return f"{told}; none on *{', '.join(none)}*, which knows nothing of it" if none else told


def _missing(plan: BenchPlan, ledger: BenchLedger) -> list[str]:
    names = path_names(plan)
    skipped = [f"- {item.build} {item.pair.short}: {item.reason}" for item in plan.skipped]
    failed = [
        f"- {job}, in round {failure.round + 1}: {without_folders(failure.error.message, names)}"
        for job, failure in ledger.failures.items()
    ]
    parts = []
    if skipped:
        parts += ["## Left out", "\n".join(skipped)]
    if failed:
        parts += ["## Failed", "\n".join(failed)]
    return parts
