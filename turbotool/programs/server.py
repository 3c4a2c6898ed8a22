"""llama-server for the length of a check: on a free local port, driven over HTTP, never left behind."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.effective import VERBOSE, require_effective
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.runner import Runner, failure
from turbotool.system.process import Background, Completed, background, describe_exit

START_SECONDS = 120.0
CALL_SECONDS = 120.0
N_CTX = 1024
SLOTS = 2


@dataclass(frozen=True)
class Continuation:
    """Text, (token id, log probability) of each token, how many prompt tokens came from the cache, and the slot."""

    text: str
    tokens: tuple[tuple[int, float], ...]
    cached: int
    slot: int


@dataclass(frozen=True)
class Server:
    """A running llama-server. Every call raises BinaryFailed if the server answers with an error or does not answer."""

    child: Background
    port: int
    log: Path

    def is_ready(self) -> bool:
        """Does it answer by now? Unlike `call`, this does not wait for the end of a server that does not."""
        try:
            self._answer("/health", None)
        except (OSError, ValueError):
            return False
        return True

    def _answer(self, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, headers={"Content-Type": "application/json"}
        )
        # a proxy of the environment must not see a call to this machine
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=CALL_SECONDS) as answer:
            return json.loads(answer.read())

    def call(self, path: str, body: object = None) -> Any:
        """What the server answers, as JSON; `body` makes it a POST. Raises BinaryFailed."""
        try:
            return self._answer(path, body)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", errors="replace")
            raise BinaryFailed(
                f"llama-server answered {error.code} to {path}: {said}", how=f"HTTP {error.code}"
            ) from error
        except (OSError, ValueError) as error:
            raise BinaryFailed(f"llama-server did not answer {path}: {error}", how=self._how()) from error

    def _how(self) -> str:
        code = self.child.wait(1)
        return "no answer" if code is None else describe_exit(code)

    def complete(self, prompt: str, *, slot: int, n: int) -> Continuation:
        """Greedy continuation of `prompt` by `n` tokens in one slot; the slot's cached prefix is reused."""
        return _continuation(self.call("/completion", _request(prompt, n) | {"id_slot": slot}))

    def next_token(self, prompt: str, *, slot: int, top: int) -> tuple[dict[int, float], int]:
        """Log probabilities of the `top` likeliest next tokens by id, and how many prompt tokens were cached."""
        answer = self.call("/completion", _request(prompt, 1) | {"id_slot": slot, "n_probs": top})
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            return {int(item["id"]): float(item["logprob"]) for item in listed}, int(answer["timings"]["cache_n"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BinaryFailed(f"llama-server's answer lacks {error}", how="unexpected answer") from error

    def complete_many(self, prompt: str, *, copies: int, n: int) -> list[Continuation]:
        """`copies` continuations of one prompt: it is evaluated once and its sequence copied to the other slots."""
        answer = self.call("/completion", _request(prompt, n) | {"n_cmpl": copies})
        return [_continuation(item) for item in (answer if isinstance(answer, list) else [answer])]

    def slot(self, number: int, action: str, filename: str | None = None) -> dict[str, Any]:
        """Save, restore or erase a slot."""
        answer = self.call(f"/slots/{number}?action={action}", {"filename": filename} if filename else {})
        return answer if isinstance(answer, dict) else {}


def _request(prompt: str, n: int) -> dict[str, object]:
    return {
        "prompt": prompt,
        "n_predict": n,
        "temperature": 0,
        "seed": 1,
        "cache_prompt": True,
        "n_probs": 1,
        "ignore_eos": True,
    }


def _continuation(answer: dict[str, Any]) -> Continuation:
    try:
        tokens = tuple((int(item["id"]), float(item["logprob"])) for item in answer.get("completion_probabilities", []))
        return Continuation(str(answer["content"]), tokens, int(answer["timings"]["cache_n"]), int(answer["id_slot"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BinaryFailed(f"llama-server's answer lacks {error}", how="unexpected answer") from error


@contextlib.contextmanager
def serve(
    runner: Runner, model: Model, pair: CachePair, *, name: str, knobs: Knobs = OFF, reuse: int = 0
) -> Iterator[Server]:
    """A server with two slots, each its own stream of the cache; it is gone when the block ends, however it ends.

    With `reuse` it moves cached chunks of at least that many tokens to new positions instead of evaluating them again.


    Raises BinaryFailed if it does not come up, ConfigurationMismatch if its cache is not the requested one.
    """
    folder = runner.work / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    log = runner.work / f"server-{name}.log"
    port = free_port()
    command = [
        str(word)
        for word in (*runner.binaries.command("llama-server"), *_arguments(runner, model, pair, port, folder, reuse))
    ]
    started = time.monotonic()
    with background(command, cwd=runner.work, env=runner.environment(knobs.environment), log=log) as child:
        server = Server(child, port, log)
        _wait_until_ready(server, command, runner.work)
        result = runner.record("llama-server", pair, knobs, _completed(server, command, runner.work, started))
        require_effective(pair, knobs, model, result.effective)
        yield server


def _arguments(
    runner: Runner, model: Model, pair: CachePair, port: int, folder: Path, reuse: int
) -> Sequence[str | Path]:
    where = ("--host", "127.0.0.1", "--port", str(port), "--no-ui", "--slot-save-path", f"{folder}/")
    # -cram 0: a prompt cache in RAM would hide what save and restore do
    shape = ("-c", str(N_CTX), "-np", str(SLOTS), "-no-kvu", "-cram", "0", "--cache-reuse", str(reuse))
    speed = ("-t", str(runner.threads), "-fa", "on", "-fit", "off")
    return ("-m", model.path, *where, *shape, *speed, *VERBOSE, "--log-colors", "off", *pair.flags)


def _wait_until_ready(server: Server, command: Sequence[str], cwd: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.child.returncode is None:
        if server.is_ready():
            return
        if time.monotonic() > deadline:
            raise BinaryFailed(
                f"llama-server was not ready after {START_SECONDS:.0f} s", how="timeout", hint=f"see {server.log}"
            )
        time.sleep(0.05)
    raise failure("llama-server", _completed(server, command, cwd, time.monotonic()))


def _completed(server: Server, command: Sequence[str], cwd: Path, started: float) -> Completed:
    output = server.log.read_text(encoding="utf-8", errors="replace")
    code = server.child.returncode
    return Completed(tuple(command), cwd, time.monotonic() - started, 0 if code is None else code, output, server.log)


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
