"""What commands share: options and how they are read, and how an error ends a command."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import click
from click.exceptions import Exit

from turbotool.errors import Interrupted, TurbotoolError, UnexpectedFailure, first_line
from turbotool.system.output import Output
from turbotool.system.session import Session

MAX_DIGITS = 10
SUBDIR = "The folder that holds the sources, in an archive or in that of PACKAGE==VERSION."
F = TypeVar("F", bound=Callable[..., Any])


def session_options(function: F) -> F:
    """Add --json, --quiet and -v to a command and hand it one `session: Session`.

    A TurbotoolError becomes text, JSON and an exit code, and so does whatever else is raised.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")
    @click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
    @click.option("--verbose", "-v", count=True, help="More detail; a traceback when something fails.")
    @functools.wraps(function)
    def wrapper(*args: Any, as_json: bool, quiet: bool, verbose: int, **kwargs: Any) -> Any:
        from turbotool.layout import find_layout

        out = Output(json=as_json, quiet=quiet, verbose=verbose)
        try:
            return function(*args, session=Session(find_layout(), out), **kwargs)
        except KeyboardInterrupt:
            fail(Interrupted("interrupted"), out)
        except (BrokenPipeError, click.ClickException, click.Abort, Exit):
            raise  # `main` knows them
        except Exception as error:  # a traceback is for those who ask for it
            fail(explained(error), out)

    return wrapper  # type: ignore[return-value]


def fail(error: TurbotoolError, out: Output, document: Any = None) -> NoReturn:
    """Print the error for people and, with --json, `document` with it or else the error alone; exit with its code."""
    if out.verbose:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  try: {error.hint}", file=sys.stderr)
    if out.json:
        with contextlib.suppress(OSError):  # nobody reads stdout, or its disk is full: the error was told
            out.document(_with_error(document, error))
    sys.exit(error.exit_code)


def explained(error: Exception) -> TurbotoolError:
    """The error if it is one of ours, or else one that tells it in a line; -v shows where it came from."""
    if isinstance(error, TurbotoolError):
        return error
    if isinstance(error, OSError):
        told = _refused(error)
    else:
        told = UnexpectedFailure(
            f"unexpected {type(error).__name__}: {first_line(str(error))}",
            hint="the same command with -v shows where it comes from, which is worth a report",
        )
    told.__cause__ = error
    return told


def _refused(error: OSError) -> TurbotoolError:
    """NoSpace for a full disk, or else what the system did not allow."""
    from pathlib import Path

    from turbotool.system.files import out_of_space

    full = out_of_space(error, Path(str(error.filename or "the output")))
    if isinstance(full, TurbotoolError):
        return full
    what = f"cannot use {error.filename}: {error.strerror}" if error.filename else f"unexpected error: {error}"
    return UnexpectedFailure(what, hint="look at it, or name other folders: TURBOTOOL_WORK, TURBOTOOL_CACHE")


def _with_error(document: Any, error: TurbotoolError) -> object:
    from turbotool.system.documents import ErrorDocument, error_fields

    if document is None:
        return ErrorDocument(False, error_fields(error))
    return replace(document, error=error_fields(error))


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


def finite(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    """A callback that refuses nan, which no range keeps out, and infinity, which no document can hold."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number", ctx=ctx, param=parameter)
    return value


def finite_or_none(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """The same for an option without a default."""
    return None if value is None else finite(ctx, parameter, value)


def wrapper_option(function: F) -> F:
    """Add --wrapper, which becomes `wrapper: tuple[str, ...]`."""

    def split(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
        import shlex

        try:
            return tuple(shlex.split(value or ""))
        except ValueError as error:
            raise click.BadParameter(f"'{value}': {error}", ctx=ctx, param=parameter) from error

    words = "Words to put before every program, such as 'qemu-aarch64 -L /usr/aarch64-linux-gnu'."
    return click.option("--wrapper", callback=split, help=words)(function)


def parse_option(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE words as pairs."""
    pairs = []
    for value in values:
        name, equals, text = value.removeprefix("-D").partition("=")
        if not equals or not name.replace("_", "").isalnum():
            raise click.BadParameter(f"'{value}' is not NAME=VALUE", ctx=ctx, param=parameter)
        pairs.append((name, text))
    return tuple(pairs)


def parse_archs(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """`86,89` as ('86', '89')."""
    archs = tuple(word for word in value.replace(";", ",").split(",") if word)
    if any(not word.replace("-", "").isalnum() for word in archs):
        raise click.BadParameter(f"'{value}' is not a list such as 86,89", ctx=ctx, param=parameter)
    return archs


BUILD_OPTIONS = (
    click.option("--backend", default="cpu", show_default=True, help="cpu, cuda, metal or vulkan."),
    click.option(
        "--arch",
        "archs",
        default="",
        callback=parse_archs,
        help="CUDA architectures, such as 86,89. Default: this machine's GPU; in a package all usual ones.",
    ),
    click.option(
        "--cmake-option",
        "options",
        multiple=True,
        callback=parse_option,
        metavar="NAME=VALUE",
        help="One more CMake option. Repeatable.",
    ),
    click.option("--jobs", "-j", type=click.IntRange(min=1), help="Compilers at once. Default: the usable CPUs."),
)


def build_options(function: F) -> F:
    """Add what every command that compiles asks for."""
    for option in reversed(BUILD_OPTIONS):
        function = option(function)
    return function


def proof_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --backend (None if not given) and --no-verify."""
    text = "Build and verify the new pin for this backend; cpu, unless the bump began with another."
    backend = click.option("--backend", help=text)
    leave_out = click.option("--no-verify", is_flag=True, help="Move the pin unproven, without build and verify.")
    return backend(leave_out(function))
