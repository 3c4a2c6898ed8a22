"""Groups of commands that are imported only when they run, so that `turbotool --help` stays instant."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import click

# command -> (module that holds a click command of that name, one line for --help)
COMMANDS = {
    "vendor": ("turbotool.cli.vendor", "The locked upstream llama.cpp: materialise, check, bump to another."),
    "patch": ("turbotool.cli.patch", "The patch series: list, check, apply, export, rehearse, repair."),
    "build": ("turbotool.cli.build", "Compile the patched tree for a backend."),
    "verify": ("turbotool.cli.verify", "Prove the built binaries with a real model."),
    "eval": ("turbotool.cli.eval", "Quality of KV caches and rotations against f16, and which one to run."),
    "calibrate": (
        "turbotool.cli.calibrate",
        "Measure what a quantized KV cache of a model loses less with, and check it.",
    ),
    "serve": ("turbotool.cli.serve", "From a model to an OpenAI-compatible server: context and cache that fit."),
    "python-env": ("turbotool.cli.python_env", "A Python environment: llama-cpp-python on the libraries of a build."),
    "plan": ("turbotool.cli.plan", "Memory of KV caches by type and context, and what fits a budget."),
    "bench": ("turbotool.cli.bench", "Speed over cache types, depths and threads, two builds compared."),
    "package": ("turbotool.cli.package", "A release archive for any CPU, proven after it was unpacked."),
    "fetch": (
        "turbotool.cli.fetch",
        "A release archive from elsewhere: who built it from what, checked and proven.",
    ),
    "doctor": ("turbotool.cli.doctor", "Which tools are here, what is missing, how to install it."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        return cast(click.Command, getattr(module, cmd_name.replace("-", "_")))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from turbotool.system.names import did_you_mean

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
