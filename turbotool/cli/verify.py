"""`turbotool verify`: prove the built binaries with a real model."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import output_options, wrapper_option
from turbotool.errors import VerificationFailed
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.verify.check import Context
    from turbotool.verify.verification import Verification

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--backend", default="cpu", show_default=True, help="Which build to verify.")
@click.option("--bin-dir", type=PATH, help="Verify the binaries in this folder instead of building.")
@click.option(
    "--package", "archive", type=PATH, help="Unpack this archive of turbotool package and verify what it holds."
)
@wrapper_option
@click.option("--model", "model_path", type=PATH, help="A GGUF file  [default: the locked small model]")
@click.option("--corpus", "corpus_path", type=PATH, help="A UTF-8 text  [default: upstream's documentation]")
@click.option("--quick", is_flag=True, help="The subset that takes under a minute.")
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run only this check; may be repeated.")
@click.option("--list", "list_only", is_flag=True, help="List the checks and stop.")
@click.option("--report", type=PATH, help="Write a JUnit XML report.")
@output_options
def verify(
    backend: str,
    bin_dir: Path | None,
    archive: Path | None,
    wrapper: tuple[str, ...],
    model_path: Path | None,
    corpus_path: Path | None,
    quick: bool,
    names: tuple[str, ...],
    list_only: bool,
    report: Path | None,
    out: Output,
) -> None:
    """Prove the built binaries with a real model: named checks, each with a measured value and its bound."""
    from turbotool.inputs.corpus import named_corpus
    from turbotool.inputs.default_model import choose_model
    from turbotool.layout import find_layout
    from turbotool.programs.choose import choose_binaries
    from turbotool.programs.devices import on_a_device
    from turbotool.release.unpacked import require_wrapper, unpacked, work_name
    from turbotool.verify import run, verification
    from turbotool.verify.registry import CHECKS

    if list_only:
        for spec in CHECKS:
            out.say(f"{spec.name:24} {'quick' if spec.quick else '     '}  {spec.about}")
        out.document({"checks": [{"name": spec.name, "quick": spec.quick, "about": spec.about} for spec in CHECKS]})
        return
    if archive and bin_dir:
        raise click.UsageError("--package and --bin-dir exclude each other")
    specs = verification.select(names, quick)
    require_wrapper(wrapper, "install it, or correct --wrapper")
    layout = find_layout()
    # what was named is looked at before a build of many minutes
    model = choose_model(layout, model_path, out)
    named = named_corpus(corpus_path) if corpus_path else None
    holder = (
        unpacked(archive.absolute(), wrapper)
        if archive
        else nullcontext(replace(choose_binaries(layout, backend, bin_dir, out), wrapper=wrapper))
    )
    with holder as found:
        binaries = on_a_device(found, out)
        name = work_name(binaries) if archive else binaries.backend
        context = run.make_context(layout, name, binaries, model, named, out, quick=quick)
        out.say(f"verifying {archive or binaries.bin_dir} with {model.path.name} ({len(specs)} checks)")
        result = verification.verify(context, specs)
    _publish(result, context, report, out)


def _publish(result: Verification, context: Context, report: Path | None, out: Output) -> None:
    """Print the table, write the report and the document, and exit with VerificationFailed's code if a check failed."""
    from turbotool.verify.junit import write_report
    from turbotool.verify.verification import table

    binaries, model = context.runner.binaries, context.model
    facts = {
        "backend": binaries.backend,
        "bin_dir": str(binaries.bin_dir),
        "tree": binaries.tree,
        "model": str(model.path),
        "corpus": str(context.text.path),
        "log": str(context.runner.log),
    }
    if report:
        write_report(report, result.checks, facts)
    out.say(table(result))
    failed = VerificationFailed(
        f"{len(result.failed)} of {len(result.checks)} checks failed: {', '.join(result.failed)}"
    )
    out.document(
        {
            "ok": result.ok,
            **facts,
            "quick": context.quick,
            "seconds": round(result.seconds, 1),
            "checks": [check.as_json() for check in result.checks],
            **({} if result.ok else {"error": failed.as_json()}),
        }
    )
    if not result.ok:
        print(f"error: {failed.message}\n  try: read {context.runner.log}", file=sys.stderr)
        sys.exit(failed.exit_code)
    skipped = sum(check.skipped for check in result.checks)
    passed = len(result.checks) - skipped
    out.say(f"verified: {passed} checks passed{f', {skipped} skipped' if skipped else ''} in {result.seconds:.0f} s")
