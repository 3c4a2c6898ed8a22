"""The command line: commands are imported only when they run, so that `turbotool --help` stays instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from turbotool import __version__
from turbotool.cli.lazy import LazyGroup
from turbotool.cli.options import explained, fail
from turbotool.errors import Interrupted, UsageMistake
from turbotool.system.output import Output, drop_stdout

VERSION = "Show the version, and which llama.cpp is pinned, and exit."


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"turbotool, version {__version__}{_pinned()}")
        ctx.exit()


def _pinned() -> str:
    """The pinned llama.cpp as it is known; nothing where the lock does not tell, which is another command's to say."""
    from turbotool.errors import LockError
    from turbotool.layout import find_layout
    from turbotool.upstream.lock import read_lock

    try:
        return f" (llama.cpp {read_lock(find_layout()).upstream.short})"
    except LockError:
        return ""


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help=VERSION)
def main() -> None:
    """Turn a pinned llama.cpp plus the turbo patch series into proven binaries, and find the KV cache to run."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `turbotool` script. A `kill` and a closed terminal end what it started, as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    _open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(words))
    except BrokenPipeError:  # whoever read the output has had enough, as `| head` has
        drop_stdout()
        sys.exit(1)
    except OSError as error:  # of what click prints
        drop_stdout()
        fail(explained(error), Output())


def _open_closed_streams() -> None:
    """A stream that was closed (`>&-`) leads nowhere, so that no file which is opened later takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _run(words: list[str]) -> int:
    """Run a command that returns, and tell its exit code."""
    try:
        code = main.main(args=words, prog_name="turbotool", standalone_mode=False)
    except click.ClickException as error:
        _refuse(error, as_json="--json" in words)
    except click.Abort:  # Ctrl-C while a command was imported, and told by nobody yet
        fail(Interrupted("interrupted"), Output(json="--json" in words))
    return code if isinstance(code, int) else 0


def _refuse(error: click.ClickException, *, as_json: bool) -> NoReturn:
    """Say what is wrong with the words, as click does and with --json as every other error is told."""
    error.show()
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "turbotool --help"
    mistake = UsageMistake(error.format_message(), hint=hint)
    if as_json:
        from turbotool.system.documents import ErrorDocument, error_fields

        Output(json=True).document(ErrorDocument(False, error_fields(mistake)))
    sys.exit(mistake.exit_code)
