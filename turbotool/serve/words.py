"""What the user typed behind `--` for llama-server: what of it is decided here, and what it says of the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from turbotool.errors import UsageMistake

# an option that is decided here -> what decides it
DECIDED = {
    **dict.fromkeys(("-m", "--model"), "MODEL"),
    **dict.fromkeys(("-c", "--ctx-size"), "--ctx"),
    **dict.fromkeys(("-np", "--parallel"), "--parallel"),
    **dict.fromkeys(("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"), "--kv"),
    # its log says where it listens and which cache it has
    **dict.fromkeys(("-lv", "--verbosity", "--log-verbosity", "-v", "--verbose", "--log-verbose"), "-v"),
    **dict.fromkeys(("--log-disable", "--log-jsonl"), "-v"),
}
PROMPTS = ("-cram", "--cache-ram")
LAST_PORT = 65535
PREFIX = (("--api-prefix",), "LLAMA_ARG_API_PREFIX")
KEYS = (("--api-key", "--api-key-file"), "LLAMA_API_KEY")


def require_free(words: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise UsageMistake for an option that would undo what is decided here, and for a port that there is not.

    llama-server takes such a port for another one, and says that it listens there.
    """
    if words and not words[0].startswith("-"):
        raise UsageMistake(f"unexpected {words[0]}", hint="one MODEL, then -- and options of llama-server")
    port = value(words, env, ("--port",), "LLAMA_ARG_PORT")
    if port.isdecimal() and int(port) > LAST_PORT:
        raise UsageMistake(f"there is no port {port}", hint=f"one from 1 to {LAST_PORT}: -- --port 8080")
    for word in words:
        if word in DECIDED:
            raise UsageMistake(f"{word} is decided by turbotool serve", hint=f"say it with {DECIDED[word]}")


def has(words: Sequence[str], names: Sequence[str]) -> bool:
    return any(word in names for word in words)


def value(words: Sequence[str], env: Mapping[str, str], names: Sequence[str], variable: str) -> str:
    """The last value of an option, or else that of its variable; empty without both."""
    typed = [after for word, after in pairwise(words) if word in names]
    return typed[-1] if typed else env.get(variable, "")
