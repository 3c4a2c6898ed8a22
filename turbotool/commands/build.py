"""`turbotool build`: parse, call, print."""

from __future__ import annotations

import os

import click

from turbotool.cli import F, output_options
from turbotool.output import Output


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
    click.option("--jobs", "-j", type=click.IntRange(min=1), help="Compilers at once. Default: the number of CPUs."),
)


def build_options(function: F) -> F:
    """Add what every command that compiles asks for."""
    for option in reversed(BUILD_OPTIONS):
        function = option(function)
    return function


@click.command()
@build_options
@click.option("--portable", is_flag=True, help="Code for any CPU of this architecture instead of this very CPU.")
@click.option("--target", "targets", multiple=True, help="One more target of llama.cpp to build. Repeatable.")
@output_options
def build(
    backend: str,
    archs: tuple[str, ...],
    portable: bool,
    targets: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
    jobs: int | None,
    out: Output,
) -> None:
    """Vendor and patch if needed, then compile. Does nothing, in about a second, when nothing changed."""
    from turbotool.backend import Choices, find_backend
    from turbotool.buildkey import Request
    from turbotool.layout import find_layout
    from turbotool.product import build_product

    request = Request(find_backend(backend), Choices(portable, archs), options, targets, jobs or 0)
    outcome = build_product(find_layout(), request, out, os.environ)
    out.document(outcome.as_json())
