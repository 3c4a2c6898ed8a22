"""Write the pages of docs/reference that the code itself says: `python ci/reference.py`; `--check` only compares.

The command line comes from its click objects, without a width, so that the pages are the same wherever they are made.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from schemas import formats_page, schema_files

from turbotool import errors
from turbotool.cli import main as cli
from turbotool.errors import TurbotoolError

group: click.Group = cli.main  # the one place that says where the command line begins
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by ci/reference.py; do not edit. -->"
ANYWHERE = 10_000  # columns: no line of a usage is broken


@dataclass(frozen=True)
class Command:
    """A command as it is typed, such as `turbotool patch list`, with its click object."""

    words: str
    command: click.Command

    @property
    def context(self) -> click.Context:
        names = list(group.context_settings["help_option_names"])
        return click.Context(self.command, info_name=self.words, terminal_width=ANYWHERE, help_option_names=names)

    @property
    def options(self) -> list[tuple[str, str]]:
        """Each option as it is written, and its help. Arguments are in the usage."""
        context = self.context
        options = [one for one in self.command.get_params(context) if isinstance(one, click.Option)]
        return [record for option in options if (record := option.get_help_record(context))]


def names() -> list[str]:
    """The commands right below turbotool, in order."""
    return group.list_commands(click.Context(group))


def commands(words: str = "turbotool", command: click.Command = group) -> Iterator[Command]:
    """A command and all below it, each group in its own order."""
    here = Command(words, command)
    yield here
    for name, below in _below(here).items():
        yield from commands(f"{words} {name}", below)


def _below(here: Command) -> dict[str, click.Command]:
    if isinstance(here.command, click.Group):
        found = {
            name: here.command.get_command(here.context, name) for name in here.command.list_commands(here.context)
        }
        return {name: command for name, command in found.items() if command}
    # a command that hands over to others if its first word is their name
    others: Mapping[str, tuple[str, str]] = getattr(here.command, "others", {})
    return {name: getattr(importlib.import_module(module), name) for name, (module, _) in others.items()}


def common(every: Sequence[Command]) -> list[tuple[str, str]]:
    """The options that all commands have which are no mere group."""
    first, *others = (one.options for one in every if not isinstance(one.command, click.Group))
    return [option for option in first if all(option in options for options in others)]


def command_line() -> str:
    """docs/reference/command-line.md"""
    every = list(commands())
    shared = common(every)
    lines = ["# Command line", "", MADE, "", "Every command takes these:", "", *_table(shared), ""]
    lines += ["Results are printed on stdout; progress, notes, warnings and errors on stderr."]
    lines += ["How it ends: [Exit codes](exit-codes.md). What it prints with `--json`: [Documents](formats.md)."]
    lines += ["", *(f"- [`{one.words}`](#{slug(one.words)})" for one in every)]
    for one in every:
        lines += ["", *_section(one, shared)]
    return "\n".join(lines) + "\n"


def _section(one: Command, shared: Sequence[tuple[str, str]]) -> list[str]:
    level = "##" if len(one.words.split()) <= 2 else "###"  # noqa: PLR2004 (a subcommand has three words)
    usage = one.command.get_usage(one.context).removeprefix("Usage: ")
    lines = [f"{level} {one.words}", "", "```text", " ".join(usage.split()), "```", ""]
    lines += [prose(inspect.cleandoc(one.command.help or ""))]
    own = [option for option in one.options if option not in shared]
    return [*lines, "", *_table(own)] if own else lines


def _table(options: Sequence[tuple[str, str]]) -> list[str]:
    rows = [f"| `{cell(name)}` | {prose(cell(text))} |" for name, text in options]
    return ["| option | meaning |", "|---|---|", *rows]


def cell(text: str) -> str:
    """Text that stays in its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def prose(text: str) -> str:
    """Help as Markdown: what would be markup there is meant as it stands, except `code`."""
    parts = text.replace("\b\n", "").split("`")
    plain = [re.sub(r"[*\[\]]", r"\\\g<0>", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(part for pair in zip(plain, [*parts[1::2], ""], strict=True) for part in pair).removesuffix("`")


def slug(heading: str) -> str:
    """The address of a heading on its page, as GitHub forms it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def classes() -> list[type[TurbotoolError]]:
    """Every error, by its exit code."""
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, TurbotoolError)]
    return sorted((error for error in found if error is not TurbotoolError), key=lambda error: error.exit_code)


def meaning(error: type[TurbotoolError]) -> str:
    """The first clause of its documentation."""
    return re.split(r"[;.](?:\s|$)", " ".join(str(error.__doc__).split()))[0]


def exit_codes() -> str:
    """docs/reference/exit-codes.md"""
    rows = [f"| {error.exit_code} | `{error.__name__}` | {meaning(error)} |" for error in classes()]
    others = "0 is success."
    document = "With `--json` the document has `error` with class, code, message and hint."
    lines = [
        "# Exit codes",
        "",
        MADE,
        "",
        others,
        "",
        "| code | error | meaning |",
        "|---|---|---|",
        *rows,
        "",
        document,
    ]
    return "\n".join(lines) + "\n"


def made() -> dict[str, str]:
    """Everything that the code says, by file name below docs/reference."""
    pages = {"command-line.md": command_line(), "exit-codes.md": exit_codes()}
    return {**pages, "formats.md": formats_page(FOLDER / "formats.md"), **schema_files()}


def stale() -> list[str]:
    """The files that are not what the code says, and schemas of documents that there are no more."""
    wanted = made()
    texts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in wanted if (FOLDER / name).is_file()}
    return [*(name for name, text in wanted.items() if texts.get(name) != text), *forgotten(wanted)]


def forgotten(wanted: Mapping[str, str]) -> list[str]:
    there = (path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.glob("schemas/*.json")))
    return [name for name in there if name not in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a page differs")
    if parser.parse_args().check:
        if found := stale():
            raise SystemExit(f"not up to date: {', '.join(found)}; python ci/reference.py")
        return
    wanted = made()
    for name in forgotten(wanted):
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
