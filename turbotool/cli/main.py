"""The command line: commands are imported only when they run, so that `turbotool --help` stays instant."""

from __future__ import annotations

import signal
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
    main.main(args=list(arguments) if arguments is not None else None, prog_name="turbotool")
