"""llama-server for the length of a block: told when it does not come up, and never left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_tools import python_program
from known_model import known_model
from processes import is_alive

from turbotool.errors import BinaryFailed, ConfigurationMismatch
from turbotool.kv.cachetype import CachePair
from turbotool.programs import server
from turbotool.programs.binaries import Binaries
from turbotool.programs.runner import Runner
from turbotool.programs.server import serve
from turbotool.system import process

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

Q8 = CachePair("q8_0", "q8_0")
MODEL = known_model()
LISTENING = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{{}}')
    def log_message(self, *words): pass
for line in {log!r}.splitlines():
    print(line)
print('pid', os.getpid(), flush=True)
http.server.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Handler).serve_forever()
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('pid', os.getpid(), flush=True); time.sleep(60)"


def log_of(k: str, v: str) -> str:
    """What a server prints of a cache of these types."""
    size = f"size =    1.00 MiB (   512 cells,  30 layers,  2/2 seqs), K ({k}):    0.50 MiB, V ({v}):    0.50 MiB"
    sides = [(kind, side, name) for kind in ("attn", "turbo") for side, name in (("k", k), ("v", v))]
    return "\n".join(
        f"llama_kv_cache: {line}"
        for line in (size, *(f"{kind}_rot_{side}: off, type {name}" for kind, side, name in sides))
    )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Binaries(tmp_path), tmp_path, 2)


def pid_in(folder: Path) -> int:
    (line,) = [line for line in (folder / "server-x.log").read_text().splitlines() if line.startswith("pid ")]
    return int(line.split()[1])


def test_a_server_that_ends_by_itself_is_told_with_its_status(runner: Runner) -> None:
    python_program(runner.work / "llama-server", "print('no such model', flush=True); sys.exit(3)")
    with pytest.raises(BinaryFailed, match="exit status 3\nno such model"), serve(runner, MODEL, Q8, name="x"):
        pass


def test_a_server_that_never_answers_is_given_up_and_not_left_behind(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it end when it is asked to."""
    monkeypatch.setattr(server, "START_SECONDS", 3)
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    python_program(runner.work / "llama-server", DEAF)
    with pytest.raises(BinaryFailed, match="was not ready after"), serve(runner, MODEL, Q8, name="x"):
        pass
    assert not is_alive(pid_in(runner.work))


def test_a_server_is_gone_after_an_error_in_the_block(runner: Runner) -> None:
    python_program(runner.work / "llama-server", LISTENING.format(log=log_of("q8_0", "q8_0")))
    with pytest.raises(ZeroDivisionError), serve(runner, MODEL, Q8, name="x"):
        pid = pid_in(runner.work)
        assert is_alive(pid)
        raise ZeroDivisionError
    assert not is_alive(pid)


def test_a_server_with_another_cache_is_refused_and_not_left_behind(runner: Runner) -> None:
    python_program(runner.work / "llama-server", LISTENING.format(log=log_of("f16", "q8_0")))
    with pytest.raises(ConfigurationMismatch, match="K cache type is f16"), serve(runner, MODEL, Q8, name="x"):
        pass
    assert not is_alive(pid_in(runner.work))
