"""What a person and a program see: results on stdout, what happens meanwhile on stderr; with --json one document."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

MINUTES = 60  # of an hour


class Progress(Protocol):
    """A bar that the caller moves: `done` of `total` and a word on what is at work.

    `left` is the remaining time in seconds for a caller who knows it better than the rate of steps so far tells.
    """

    def __call__(self, done: int, total: int, what: str = "", left: float | None = None) -> None: ...


def minutes(seconds: float) -> str:
    """A duration as people read it: `3:05 min`, `2:03:05 h`."""
    whole, rest = divmod(round(seconds), 60)
    if whole >= MINUTES:
        return f"{whole // MINUTES}:{whole % MINUTES:02d}:{rest:02d} h"
    return f"{whole}:{rest:02d} min"


def drop_stdout() -> None:
    """Print nothing more, not even what waits in the buffer: whoever read it has gone, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(text: str) -> None:
    """A line on stdout. Raises OSError where it cannot be written."""
    try:
        print(text, flush=True)
    except OSError:
        drop_stdout()
        raise


@dataclass(frozen=True)
class Output:
    """How one command speaks. `verbose` counts -v; with `quiet` only errors are printed."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def result(self, text: str) -> None:
        """What the command is for: a table, a list, a recommendation, a path. With --json the document has stdout."""
        if not self.quiet:
            (self._print if self.json else _write)(text)

    def say(self, text: str) -> None:
        """A line on what happens, for people."""
        if not self.quiet:
            self._print(text)

    def detail(self, text: str) -> None:
        """A line for people who asked for more (-v)."""
        if self.verbose and not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """What can be done but should be known; an error is never told this way."""
        if not self.quiet:
            self._print(f"warning: {text}")

    def document(self, data: object) -> None:
        """The command's one JSON document, see `documents`; printed only with --json."""
        if self.json:
            from turbotool.system.documents import as_builtins

            _write(json.dumps(as_builtins(data), indent=2, ensure_ascii=False))

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A progress bar on a terminal; on a pipe a line about every tenth, so that CI logs stay readable."""
        if self.quiet:
            yield lambda done, total, what="", left=None: None
        elif sys.stderr.isatty():
            yield from self._bar(title)
        else:
            yield self._tenths(title)

    def _tenths(self, title: str) -> Progress:
        said = -1

        def step(done: int, total: int, what: str = "", left: float | None = None) -> None:
            nonlocal said
            tenth = 10 * done // total if total else 0
            if tenth != said:
                said = tenth
                self._print(f"{title}: {done}/{total}" + (f", about {minutes(left)} left" if left else ""))

        return step

    def _bar(self, title: str) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class Left(TimeRemainingColumn):
            """The caller's remaining time, counting down between two steps, or else rich's."""

            def render(self, task: Task) -> Text:
                end = task.fields["end"]
                known = max(0.0, end - time.monotonic()) if end is not None else None
                return super().render(task) if known is None else Text(minutes(known), style="progress.remaining")

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Left(),
            TextColumn("[dim]{task.fields[what]}", markup=True),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None, what="", end=None)

            def step(done: int, total: int, what: str = "", left: float | None = None) -> None:
                end = time.monotonic() + left if left is not None else None
                bar.update(task, completed=done, total=total, what=what, end=end)

            yield step
