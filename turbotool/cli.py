"""The command line: commands are imported only when they run, so that `turbotool --help` stays instant."""

from __future__ import annotations

import functools
import importlib
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from turbotool import __version__
from turbotool.errors import Interrupted, TurbotoolError
from turbotool.output import Output

# command -> (module that holds a click command of that name, one line for --help)
COMMANDS = {
    "vendor": ("turbotool.commands.vendor", "Materialise the locked upstream llama.cpp; bump moves the pin."),
    "patch": ("turbotool.commands.patch", "The patch series: list, check, apply, export, rehearse, repair."),
    "build": ("turbotool.commands.build", "Compile the patched tree for a backend."),
    "verify": ("turbotool.commands.verify", "Prove the built binaries with a real model."),
    "eval": ("turbotool.commands.eval", "Quality of KV caches and rotations against f16, and which one to run."),
    "plan": ("turbotool.commands.plan", "Memory of KV caches by type and context, and what fits a budget."),
    "bench": ("turbotool.commands.bench", "Speed over cache types, depths and threads, two builds compared."),
    "package": ("turbotool.commands.package", "A release archive for any CPU, proven after it was unpacked."),
    "doctor": ("turbotool.commands.doctor", "Which tools are here, what is missing, how to install it."),
}

MAX_DIGITS = 10

F = TypeVar("F", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        return cast(click.Command, getattr(module, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from turbotool.guess import did_you_mean

            ctx.fail(f"no such command '{args[0]}'{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


class CommandWithOthers(click.Command):
    """A command that hands over to another one if its first word is that one's name: `eval MODEL`, `eval compare A B`.

    A file of such a name is reached as `./compare`.
    """

    def __init__(self, *args: Any, others: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """`others` are modules and one line for --help by the command's name, as in COMMANDS."""
        super().__init__(*args, **kwargs)
        self.others = others

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.others:
            other = cast(click.Command, getattr(importlib.import_module(self.others[args[0]][0]), args[0]))
            return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.others.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="turbotool")
def main() -> None:
    """Turn a pinned llama.cpp plus the turbo patch series into proven binaries, and find the KV cache to run."""


def output_options(function: F) -> F:
    """Add --json, --quiet and -v to a command and hand it one `out: Output`.

    A TurbotoolError becomes text, JSON and an exit code.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")
    @click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
    @click.option("--verbose", "-v", count=True, help="More detail; a traceback when something fails.")
    @functools.wraps(function)
    def wrapper(*args: Any, as_json: bool, quiet: bool, verbose: int, **kwargs: Any) -> Any:
        out = Output(json=as_json, quiet=quiet, verbose=verbose)
        try:
            return function(*args, out=out, **kwargs)
        except KeyboardInterrupt:
            fail(Interrupted("interrupted"), out)
        except TurbotoolError as error:
            fail(error, out)

    return wrapper  # type: ignore[return-value]


def fail(error: TurbotoolError, out: Output, document: Mapping[str, object] | None = None) -> NoReturn:
    """Print the error for people and, with --json, `document` or else the error as one, then exit with its code."""
    if out.verbose:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  try: {error.hint}", file=sys.stderr)
    out.document(document or {"ok": False, "error": error.as_json()})
    sys.exit(error.exit_code)


def numbers(low: int, high: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...] | None]:
    """A callback that reads `0,512,4096`, without repetitions."""

    def parse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        found = []
        for word in map(str.strip, value.split(",")):
            readable = word.isascii() and word.isdigit() and len(word) < MAX_DIGITS
            if not (readable and low <= int(word) <= high):
                raise click.BadParameter(f"'{word}' is not a number from {low} to {high}", ctx=ctx, param=parameter)
            found.append(int(word))
        return tuple(dict.fromkeys(found))

    return parse


def wrapper_option(function: F) -> F:
    """Add --wrapper, which becomes `wrapper: tuple[str, ...]`."""

    def split(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
        import shlex

        return tuple(shlex.split(value or ""))

    words = "Words to put before every program, such as 'qemu-aarch64 -L /usr/aarch64-linux-gnu'."
    return click.option("--wrapper", callback=split, help=words)(function)


def prepare_folder(folder: Path) -> None:
    """Make the folder of a report. Raises click.BadParameter where nothing can be written."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise click.BadParameter(f"cannot write to {folder}: {error.strerror}", param_hint="--report") from error


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `turbotool` script. A `kill` and a closed terminal end what it started, as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    main.main(args=list(arguments) if arguments is not None else None, prog_name="turbotool")
