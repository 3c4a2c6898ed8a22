"""llama-server for the length of a block: told when it does not come up, and never left behind."""

from __future__ import annotations

import math
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
from turbotool.programs.server import Setup, serve
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


def test_a_setup_says_how_the_cache_is_shared_and_who_drafts() -> None:
    assert " ".join(map(str, Setup().flags)) == "-c 1024 -np 2 -no-kvu --cache-reuse 0"
    shared = Setup(3, 2048, unified=True, reuse=32, words=("--embeddings",))
    assert " ".join(map(str, shared.flags)) == "-c 2048 -np 3 -kvu --cache-reuse 32 --embeddings"
    drafted = Setup(draft=Path("small.gguf"), draft_pair=CachePair("turbo4", "turbo2"))
    assert " ".join(map(str, drafted.flags)).endswith(
        "-md small.gguf --spec-type draft-simple -ctkd turbo4 -ctvd turbo2"
    )


@pytest.mark.parametrize("draft", ["turbo2", "f16"])
def test_the_cache_of_a_draft_is_compared_with_its_own_request(runner: Runner, draft: str) -> None:
    log = f"{log_of('q8_0', 'q8_0')}\n{server.DRAFT_BEGINS} 'small.gguf'\n{log_of('f16', 'f16')}"
    python_program(runner.work / "llama-server", LISTENING.format(log=log))
    setup = Setup(draft=Path("small.gguf"), draft_pair=CachePair(draft, draft))
    if draft == "f16":
        with serve(runner, MODEL, Q8, name="x", setup=setup):
            assert [run.pair for run in runner.runs] == [Q8, setup.draft_pair]
    else:
        with (
            pytest.raises(ConfigurationMismatch, match="K cache type is f16, requested turbo2"),
            serve(runner, MODEL, Q8, name="x", setup=setup),
        ):
            pass


def test_a_token_leads_by_what_the_next_one_lacks() -> None:
    items = [
        {"id": 1, "logprob": -0.1, "top_logprobs": [{"logprob": -0.1}, {"logprob": -2.4}]},
        {"id": 2, "logprob": 0.0, "top_logprobs": []},
    ]
    timings = {"cache_n": 3, "draft_n": 2, "draft_n_accepted": 1}
    found = server._continuation({"content": "x", "completion_probabilities": items, "timings": timings, "id_slot": 0})
    assert found.tokens == ((1, -0.1), (2, 0.0))
    assert found.leads[0] == pytest.approx(2.3)
    assert found.leads[1] == math.inf
    assert (found.cached, found.drafted, found.accepted) == (3, 2, 1)
