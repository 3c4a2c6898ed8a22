"""How child processes are run: no shell, a recorded command, and what ends turbotool ends the whole process group."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import Interrupted, ToolFailed, ToolMissing
from turbotool.system.files import out_of_space

TAIL_LINES = 40
POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
STEP_SECONDS = 0.1
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; of getrusage(2)


@dataclass(frozen=True)
class Completed:
    """A finished child: what ran, where, for how long (seconds), how it ended, what it printed on stdout and stderr.

    `peak` is the most memory that it had resident at once, in bytes: files that it mapped count as far as they were
    read, and so does what this process had when it started the child. None where the system does not tell.
    """

    command: tuple[str, ...]
    cwd: Path
    seconds: float
    returncode: int
    output: str
    log: Path | None
    peak: int | None = None

    @property
    def tail(self) -> str:
        return "\n".join(self.output.splitlines()[-TAIL_LINES:])


def display(command: Sequence[str | Path]) -> str:
    """The command as a person would type it."""
    return shlex.join(str(word) for word in command)


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    stop: Callable[[], bool] | None = None,
    check: bool = True,
    merge_stderr: bool = True,
    keep: Sequence[int] = (),
) -> Completed:
    """Run `command` to its end and return what it did.

    `env` replaces the environment when given. `log` receives the command line, the output and the duration, appended.
    `on_line` sees each line as it comes. `timeout` is in seconds; a child that outlives it is killed with its group.
    `stop` is asked all the time: when it says so, the child is killed with its group.
    With `merge_stderr=False` only stdout is returned and stderr is dropped. `keep` are file descriptors that the child
    inherits: with the one of a held lock file, a child that outlives a killed parent still holds the lock.

    Raises ToolMissing if the program does not exist, ToolFailed if `check` and the exit status is not 0 or on timeout,
    NoSpace if the log cannot be written, Interrupted on Ctrl-C (after the child's group got it too) and after `stop`.
    """
    words = tuple(str(word) for word in command)
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(keep),
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"cannot start {words[0]}: {error}") from error
    expired, stopped = threading.Event(), threading.Event()
    with _watchdog(child, timeout, expired), _stopper(child, stop, stopped):
        output, peak = _collect(child, words, cwd, stdin, log, on_line)
    done = Completed(words, cwd, time.monotonic() - started, child.returncode, output, log, peak)
    if stopped.is_set():
        raise Interrupted(f"stopped: {display(words)}")
    if expired.is_set():
        raise ToolFailed(f"{display(words)} did not end within {timeout:.0f} s\n{done.tail}")
    if check and done.returncode != 0:
        raise ToolFailed(f"{display(words)} ended with {describe_exit(done.returncode)}\n{done.tail}")
    return done


def describe_exit(returncode: int) -> str:
    """`exit status 3`, or the signal's name when a signal ended the child."""
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


@contextlib.contextmanager
def _watchdog(child: subprocess.Popen[str], timeout: float | None, expired: threading.Event) -> Iterator[None]:
    def expire() -> None:
        expired.set()
        _signal_group(child, signal.SIGKILL)

    timer = threading.Timer(timeout, expire) if timeout else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


@contextlib.contextmanager
def _stopper(child: subprocess.Popen[str], stop: Callable[[], bool] | None, stopped: threading.Event) -> Iterator[None]:
    ended = threading.Event()

    def watch(stop: Callable[[], bool]) -> None:
        while not ended.wait(POLL_SECONDS):
            if stop():
                stopped.set()
                _signal_group(child, signal.SIGKILL)
                return

    if stop:
        threading.Thread(target=watch, args=(stop,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _collect(
    child: subprocess.Popen[str],
    words: tuple[str, ...],
    cwd: Path,
    stdin: str | None,
    log: Path | None,
    on_line: Callable[[str], None] | None,
) -> tuple[str, int | None]:
    """What the child printed to its end, and its peak of memory."""
    lines: list[str] = []
    try:
        with _open_log(log) as write:
            write(f"$ cd {shlex.quote(str(cwd))} && {display(words)}\n")
            if stdin is not None and child.stdin:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(stdin)
                    child.stdin.close()
            for line in child.stdout or ():
                lines.append(line)
                write(line)
                if on_line:
                    on_line(line.rstrip("\n"))
            peak = _wait(child)
            write(f"# {describe_exit(child.returncode)}\n")
    except BaseException as error:
        _signal_group(child, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        _reap(child)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"interrupted: {display(words)}") from error
        raise
    return "".join(lines), peak


def _wait(child: subprocess.Popen[Any]) -> int | None:
    """Wait for the child's end; its peak of memory in bytes, which is told of a single child only by wait4(2)."""
    if sys.platform == "win32":
        child.wait()
        return None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * RSS_UNIT


@contextlib.contextmanager
def _open_log(log: Path | None) -> Iterator[Callable[[str], object]]:
    if log is None:
        yield lambda _: None
        return
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            yield stream.write
    except OSError as error:
        raise out_of_space(error, log) from error


def _signal_group(child: subprocess.Popen[Any], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _reap(child: subprocess.Popen[str]) -> None:
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        _signal_group(child, signal.SIGKILL)
        child.wait()


@dataclass(frozen=True)
class Background:
    """A child that runs beside its caller, in a session of its own."""

    child: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self.child.poll()

    def wait(self, seconds: float) -> int | None:
        """How it ended within so many seconds, or None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=seconds)
        return self.child.returncode

    def kill(self) -> None:
        """End it alone, and without a word."""
        self.child.kill()
        self.child.wait()

    def end(self, hurry: Callable[[], bool] = lambda: False) -> int:
        """End it and whatever it started: politely, then by force, at once if there is a `hurry`. How it ended."""
        if self.returncode is None:
            _signal_group(self.child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.wait(STEP_SECONDS) is None:
            if hurry() or time.monotonic() > deadline:
                _signal_group(self.child, signal.SIGKILL)
                return self.child.wait()
        return self.child.wait()


@contextlib.contextmanager
def background(
    command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None, log: Path
) -> Iterator[Background]:
    """Run `command` beside the block; it is gone when that ends, however it ends. What it prints replaces `log`.

    Raises ToolMissing if the program does not exist, NoSpace if the log cannot be written.
    """
    words = [str(word) for word in command]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = log.open("wb")
    except OSError as error:
        raise out_of_space(error, log) from error
    with sink:
        try:
            child = subprocess.Popen(
                words,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ToolMissing(f"cannot start {words[0]}: {error}") from error
    running = Background(child)
    try:
        yield running
    finally:
        running.end()


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], int]]:
    """While the block runs, Ctrl-C, `kill` and a closed terminal are counted and end nothing: the block asks and acts.

    So none is lost between the start of a child and the code that would end it. One that is ignored stays so. Only the
    main thread can do this; in another one nothing is counted.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in filter(None, (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                before[number] = signal.signal(number, lambda caught, _: noted.append(caught))
    try:
        yield lambda: len(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
