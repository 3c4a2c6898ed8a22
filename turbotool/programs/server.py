"""llama-server for the length of a check: on a free local port, driven over HTTP, never left behind."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from turbotool.errors import BinaryFailed
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED, Calibration
from turbotool.kv.effective import VERBOSE, require_effective
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.runner import Runner, failure
from turbotool.system.process import Background, Completed, background, describe_exit

START_SECONDS = 120.0
CALL_SECONDS = 120.0
DRAFT_BEGINS = "loading draft model"  # in the log, before what is said of its cache
N_CTX = 1024
SLOTS = 2
SAVED = "slots"  # in the work folder: the files of saved slots


@dataclass(frozen=True)
class Setup:
    """What a server is started with besides a model and a cache type.

    `slots` share `ctx` tokens: each has its part as a stream of its own or, if `unified`, the cells of one stream as
    they come. With `reuse` cached chunks of at least that many tokens are moved to new positions instead of evaluated
    again. `draft` is a model that guesses, and `draft_pair` its cache. `words` are whatever else.
    """

    slots: int = SLOTS
    ctx: int = N_CTX
    unified: bool = False
    reuse: int = 0
    calibration: Calibration = UNCALIBRATED
    draft: Path | None = None
    draft_pair: CachePair | None = None
    words: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str | Path, ...]:
        shape = ("-c", str(self.ctx), "-np", str(self.slots), "-kvu" if self.unified else "-no-kvu")
        draft = ("-md", self.draft, "--spec-type", "draft-simple") if self.draft else ()
        types = ("-ctkd", self.draft_pair.k, "-ctvd", self.draft_pair.v) if self.draft_pair else ()
        return (*shape, "--cache-reuse", str(self.reuse), *draft, *types, *self.words)


PLAIN = Setup()


@dataclass(frozen=True)
class Continuation:
    """Text, (token id, log probability) of each token, and the slot.

    `leads` are the nats by which each token was likelier than the next one. `cached` prompt tokens came from the cache;
    of `drafted` tokens `accepted` were right.
    """

    text: str
    tokens: tuple[tuple[int, float], ...]
    cached: int
    slot: int
    leads: tuple[float, ...] = ()
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Prediction:
    """Log probabilities of the likeliest next tokens by id, and how many tokens of the prompt came from the cache."""

    tokens: dict[int, float]
    cached: int


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

    def next_token(self, prompt: str, *, slot: int, top: int) -> Prediction:
        """The `top` likeliest tokens after `prompt`."""
        answer = self.call("/completion", _request(prompt, 1) | {"id_slot": slot, "n_probs": top})
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            tokens = {int(item["id"]): float(item["logprob"]) for item in listed}
            return Prediction(tokens, int(answer["timings"]["cache_n"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BinaryFailed(f"llama-server's answer lacks {error}", how="unexpected answer") from error

    def complete_many(self, prompt: str, *, copies: int, n: int) -> list[Continuation]:
        """`copies` continuations of one prompt: it is evaluated once and its sequence copied to the other slots."""
        answer = self.call("/completion", _request(prompt, n) | {"n_cmpl": copies})
        return [_continuation(item) for item in (answer if isinstance(answer, list) else [answer])]

    def embed(self, text: str) -> list[float]:
        """The embedding of a text, of a server that was started to give them."""
        try:
            return [float(value) for value in self.call("/embedding", {"content": text})[0]["embedding"][0]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BinaryFailed(f"llama-server's answer lacks {error}", how="unexpected answer") from error

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokens(text))

    def first(self, text: str, n: int) -> str:
        """The beginning of a text that has `n` tokens."""
        return str(self.call("/detokenize", {"tokens": self._tokens(text)[:n]})["content"])

    def _tokens(self, text: str) -> list[int]:
        return list(self.call("/tokenize", {"content": text})["tokens"])

    def kill(self) -> None:
        """End it as a system without memory does, without a word."""
        self.child.kill()

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
        "n_probs": 2,
        "ignore_eos": True,
    }


def _continuation(answer: dict[str, Any]) -> Continuation:
    try:
        listed, timings = answer.get("completion_probabilities", []), answer["timings"]
        return Continuation(
            str(answer["content"]),
            tuple((int(item["id"]), float(item["logprob"])) for item in listed),
            cached=int(timings["cache_n"]),
            slot=int(answer["id_slot"]),
            leads=tuple(_lead(item.get("top_logprobs", [])) for item in listed),
            drafted=int(timings.get("draft_n", 0)),
            accepted=int(timings.get("draft_n_accepted", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BinaryFailed(f"llama-server's answer lacks {error}", how="unexpected answer") from error


def _lead(likeliest: list[dict[str, Any]]) -> float:
    """Infinity of a token that has no other beside it, as a drafted one."""
    found = sorted((float(item["logprob"]) for item in likeliest), reverse=True)
    return found[0] - found[1] if len(found) > 1 else math.inf


@contextlib.contextmanager
def serve(
    runner: Runner, model: Model, pair: CachePair, *, name: str, knobs: Knobs = OFF, setup: Setup = PLAIN
) -> Iterator[Server]:
    """A server that is gone when the block ends, however it ends.

    Raises BinaryFailed if it does not come up, ConfigurationMismatch if its cache is not the requested one.
    """
    folder = runner.work / SAVED
    folder.mkdir(parents=True, exist_ok=True)
    log = runner.work / f"server-{name}.log"
    port = free_port()
    words = (*runner.binaries.command("llama-server"), *_arguments(runner, model, pair, port, folder, setup))
    command = [str(word) for word in words]
    started = time.monotonic()
    variables = runner.environment({**knobs.environment, **setup.calibration.environment})
    with background(command, cwd=runner.work, env=variables, log=log) as child:
        server = Server(child, port, log)
        _wait_until_ready(server, command, runner.work)
        done = _completed(server, command, runner.work, started)
        target, _, draft = done.output.partition(DRAFT_BEGINS)
        for one, output in ((pair, target), (setup.draft_pair, draft)):
            if one:
                result = runner.record("llama-server", one, knobs, replace(done, output=output), setup.calibration)
                require_effective(one, knobs, model, result.effective, setup.calibration)
        yield server


def _arguments(
    runner: Runner, model: Model, pair: CachePair, port: int, folder: Path, setup: Setup
) -> Sequence[str | Path]:
    where = ("--host", "127.0.0.1", "--port", str(port), "--no-ui", "--slot-save-path", f"{folder}/")
    # -cram 0: a prompt cache in RAM would hide what save and restore do
    speed = ("-cram", "0", "-t", str(runner.threads), "-fa", "on", "-fit", "off")
    return ("-m", model.path, *where, *speed, *VERBOSE, "--log-colors", "off", *pair.flags, *setup.flags)


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
