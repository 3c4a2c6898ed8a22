"""The command line: commands are imported only when they run, so that `turbotool --help` stays instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import click

from turbotool import __version__
from turbotool.cli.lazy import LazyGroup


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="turbotool")
def main() -> None:
    """Turn a pinned llama.cpp plus the turbo patch series into proven binaries, and find the KV cache to run."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `turbotool` script. A `kill` and a closed terminal end what it started, as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = main.main(args=words, prog_name="turbotool", standalone_mode=False)
    except click.ClickException as error:
        _refuse(error, as_json="--json" in words)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has had enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(error: click.ClickException, *, as_json: bool) -> None:
    """Say what is wrong with the words, as click does and with --json as every other error is told."""
    from turbotool.errors import UsageMistake
    from turbotool.system.output import Output

    error.show()
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "turbotool --help"
    mistake = UsageMistake(error.format_message(), hint=hint)
    if as_json:
        from turbotool.system.documents import ErrorDocument

        Output(json=True).document(ErrorDocument(False, mistake.as_json()))  # type: ignore[arg-type]
    sys.exit(mistake.exit_code)
