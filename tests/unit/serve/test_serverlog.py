"""What llama-server says, in lines that it has really printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from turbotool.errors import BinaryFailed, ModelError, TurbotoolError, UsageMistake
from turbotool.serve.serverlog import address_in, not_started

LISTENS = "0.00.979.862 I srv  llama_server: listening on "
TRUNCATED = """\
0.00.063.466 E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds
0.00.067.327 E llama_model_load_from_file_impl: failed to load model
0.00.071.777 E srv  llama_server: exiting due to model loading error
"""


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("http://127.0.0.1:8080\n", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:80\n", "http://127.0.0.1:80"),
        ("http://[::]:80\n", "http://[::1]:80"),
        ("https://example.org:8443\n", "https://example.org:8443"),
        ("unix:///tmp/llama.sock\n", "unix:///tmp/llama.sock"),
        ("http://127.0.0.1:80", None),  # not to its end
    ],
)
def test_the_address_is_one_that_this_machine_reaches(said: str, address: str | None) -> None:
    assert address_in(f"0.00.022.125 I srv  init_listene: running without SSL\n{LISTENS}{said}") == address
    assert address_in("0.00.022.125 I srv  init: using 8 threads for HTTP server\n") is None


@pytest.mark.parametrize(
    ("log", "kind", "why"),
    [
        (TRUNCATED, ModelError, "m.gguf: llama-server cannot load it: tensor 'token_embd.weight' data is not within"),
        ("error: invalid argument: --bogus\n", UsageMistake, "invalid argument: --bogus"),
        (
            "0.00.000.001 E cmn  common_init_: failed to load\n",
            BinaryFailed,
            "exit status 1 before it was ready: failed",
        ),
        ("\x1b[0mGGML_ASSERT(x) failed\n\n", BinaryFailed, "before it was ready: GGML_ASSERT(x) failed"),
        ("", BinaryFailed, "it said nothing"),
    ],
)
def test_the_first_error_is_the_reason(log: str, kind: type[TurbotoolError], why: str) -> None:
    found = not_started(Path("m.gguf"), log, 1, Path("a.log"))
    assert type(found) is kind
    assert why in found.message
    assert len(found.message.splitlines()) == 1
