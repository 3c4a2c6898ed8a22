"""A child beside a block, and signals that wait for it: nothing is left behind, and no signal is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import is_alive

from turbotool.errors import ToolMissing
from turbotool.system import process
from turbotool.system.process import background, signals_noted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

SLEEPS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_child_is_gone_when_the_block_ends_whatever_ends_it(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        background(SLEEPS, cwd=tmp_path, env=None, log=tmp_path / "logs" / "log") as child,
    ):
        assert is_alive(child.pid)
        assert child.returncode is None
        raise ZeroDivisionError
    assert not is_alive(child.pid)
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed_at_once_in_a_hurry(tmp_path: Path) -> None:
    with background(DEAF, cwd=tmp_path, env=None, log=tmp_path / "log") as child:
        wait_for(tmp_path / "log", "up")
        started = time.monotonic()
        assert child.end(hurry=lambda: True) == -signal.SIGKILL
        assert time.monotonic() - started < process.STOP_SECONDS / 2


def test_a_child_that_does_not_listen_is_killed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.3)
    with background(DEAF, cwd=tmp_path, env=None, log=tmp_path / "log") as child:
        wait_for(tmp_path / "log", "up")
    assert child.returncode == -signal.SIGKILL


def test_the_log_is_of_this_run_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of another run")
    with background([sys.executable, "-c", "print('mine')"], cwd=tmp_path, env=None, log=tmp_path / "log") as child:
        assert child.wait(30) == 0
    assert (tmp_path / "log").read_text() == "mine\n"


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ToolMissing, match="cannot start nothing-of-that-name"),
        background(["nothing-of-that-name"], cwd=tmp_path, env=None, log=tmp_path / "log"),
    ):
        pass


@pytest.mark.usefixtures("hears_hangups")
def test_signals_are_counted_and_end_nothing_while_the_block_runs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_noted() as noted:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert noted() == 3
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_noted() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert noted() == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_counts_nothing_and_changes_nothing() -> None:
    found: list[int] = []

    def work() -> None:
        with signals_noted() as noted:
            found.append(noted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
