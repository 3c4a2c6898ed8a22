"""`turbotool serve` with the real llama-server: from a model to an answer of an OpenAI client, and nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, apart, ended, started
from processes import is_alive

from turbotool.inputs.default_model import default_model
from turbotool.layout import find_layout
from turbotool.programs.completion import SYSTEM
from turbotool.programs.server import free_port
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.slow

SECONDS = 600.0  # of anything; the machine may be busy
# threads that spin make everything slow where the machine is busy, as it is with tests
CALM = {"OMP_WAIT_POLICY": "passive"}


@pytest.fixture(scope="module")
def model() -> Path:
    return default_model(Session(find_layout(), Output(quiet=True)))


@contextmanager
def serving(model: Path, built: dict[str, Any], *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """turbotool with a server that answers, and the address; whatever is left of them at the end is killed."""
    before = ["serve", model, "--bin-dir", built["bin_dir"], *words]
    child = started(*before, "--", "--port", str(free_port()), variables=CALM)
    try:
        yield child, address(child)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            ended(child, SECONDS)


def address(child: subprocess.Popen[str]) -> str:
    """What it prints when the server is ready."""
    assert child.stdout
    said = []
    for line in child.stdout:
        said.append(line)
        if line.startswith("ready after "):
            return line.partition(" at ")[2].split()[0]
    assert child.stderr
    raise AssertionError("".join(said) + child.stderr.read())


def answer(url: str) -> str:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=SECONDS)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "The capital of France is"}]
    found = client.chat.completions.create(model="any", messages=messages, temperature=0, max_tokens=32)
    return str(found.choices[0].message.content)


def below(pid: int) -> list[int]:
    """The processes that a process has started."""
    import psutil

    return [one.pid for one in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize("cache", ["f16", "q8_0", "turbo4"])
def test_an_openai_client_gets_an_answer_from_each_cache(model: Path, built: dict[str, Any], cache: str) -> None:
    with serving(model, built, "--kv", cache, "--ctx", "2048") as (_, url):
        assert "Paris" in answer(url)


def test_streams_and_models_are_as_openai_has_them(model: Path, built: dict[str, Any]) -> None:
    openai = pytest.importorskip("openai")
    with serving(model, built, "--ctx", "2048") as (_, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=SECONDS)
        assert len(client.models.list().data) == 1
        messages = [{"role": "user", "content": "Count from one to five."}]
        parts = list(client.chat.completions.create(model="any", messages=messages, stream=True, max_tokens=8))
        assert len(parts) > 4


@pytest.mark.parametrize("group", [True, False], ids=["SIGINT to the group", "SIGTERM to turbotool alone"])
def test_nothing_runs_after_it_was_ended(model: Path, built: dict[str, Any], group: bool) -> None:
    with serving(model, built, "--ctx", "2048") as (child, _):
        children = below(child.pid)
        assert children
        if group:
            os.killpg(child.pid, signal.SIGINT)
        else:
            child.send_signal(signal.SIGTERM)
        assert ended(child, SECONDS).code == 0
    assert not any(map(is_alive, children))


def test_nothing_runs_after_it_was_ended_in_the_middle_of_an_answer(model: Path, built: dict[str, Any]) -> None:
    openai = pytest.importorskip("openai")
    with serving(model, built, "--ctx", "8192") as (child, url):
        children = below(child.pid)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=SECONDS, max_retries=0)
        stream = client.completions.create(
            model="any", prompt="Once upon a time", stream=True, max_tokens=8000, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        os.killpg(child.pid, signal.SIGINT)
        ended(child, SECONDS)
    assert not any(map(is_alive, children))


def test_nothing_runs_after_it_was_ended_while_it_loaded(model: Path, built: dict[str, Any]) -> None:
    child = started("serve", model, "--bin-dir", built["bin_dir"], "--", "--port", str(free_port()), variables=CALM)
    children: list[int] = []
    deadline = time.monotonic() + SECONDS
    while not children and time.monotonic() < deadline:
        children = below(child.pid)
    child.send_signal(signal.SIGTERM)
    assert ended(child, SECONDS).code in (0, 130)
    assert not any(map(is_alive, children))


def refused(model: Path, built: dict[str, Any], *words: str) -> Done:
    done = apart("serve", model, "--bin-dir", built["bin_dir"], "--json", *words, variables=CALM, timeout=SECONDS)
    assert done.code == done.document["error"]["code"] != 0
    assert len(done.document["error"]["message"].splitlines()) == 1
    return done


def test_a_port_in_use_is_told_with_another_one(model: Path, built: dict[str, Any]) -> None:
    with serving(model, built, "--ctx", "2048") as (_, url):
        port = url.rpartition(":")[2]
        error = refused(model, built, "--", "--port", port).document["error"]
        assert error["message"] == f"llama-server cannot listen on 127.0.0.1:{port}: address already in use"
        assert "Paris" in answer(url)


def test_a_model_that_has_no_room_is_told_with_what_it_takes(model: Path, built: dict[str, Any]) -> None:
    error = refused(model, built, "--memory", "1GiB", "--ctx", "8192").document["error"]
    assert (error["class"], "--memory 1.2GiB" in error["hint"]) == ("DoesNotFit", True)


def test_a_damaged_model_is_told_by_whoever_finds_it(model: Path, built: dict[str, Any], tmp_path: Path) -> None:
    """A truncated one before anything is started, one without a tensor by llama-server."""
    short, odd = tmp_path / "short.gguf", tmp_path / "odd.gguf"
    short.write_bytes(model.read_bytes()[:5_000_000])
    assert "truncated" in refused(short, built).document["error"]["message"]
    shutil.copyfile(model, odd)
    data = odd.read_bytes()
    odd.write_bytes(data.replace(b"blk.0.attn_k.weight", b"xxx.0.attn_k.weight", 1))
    error = refused(odd, built, "--ctx", "512", "--", "--port", str(free_port())).document["error"]
    assert (error["class"], "tensor 'blk.0.attn_k.weight' not found" in error["message"]) == ("ModelError", True)


def test_a_second_start_is_warm(model: Path, built: dict[str, Any]) -> None:
    """The calibration of the first is kept, so that little but the model's own loading is left."""
    words = ("--kv", "turbo4", "--ctx", "2048")
    with serving(model, built, *words):
        pass
    begun = time.monotonic()
    with serving(model, built, *words):
        assert time.monotonic() - begun < 10
