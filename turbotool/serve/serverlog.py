"""What llama-server says of itself: where it listens, and why it does not."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from turbotool.errors import AddressUnavailable, BinaryFailed, ModelError, TurbotoolError, UsageMistake
from turbotool.system.lines import COLOUR, whole_lines
from turbotool.system.process import describe_exit

LISTENS = re.compile(r"listening on (?P<url>(?:https?|unix)://\S+)$")
UNBOUND = re.compile(r"couldn't bind HTTP server socket, hostname: (?P<host>.*), port: (?P<port>\d+)$")
UNLOADED = re.compile(r"error loading model: (?P<why>.+)$")
ERROR = re.compile(r"^(?:\d{1,9}\.\d\d\.\d{3}\.\d{3} E (?:\w+ +)?\S+: |error: )(?P<why>.+)$")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (what is read, not where anything listens)
PORTS_TRIED = 100


def address_in(log: str) -> str | None:
    """The address that it listens on, as this machine reaches it; None before it does."""
    for line in whole_lines(log):
        if match := LISTENS.search(COLOUR.sub("", line)):
            url = match["url"]
            for wildcard, local in ANYWHERE.items():
                url = url.replace(f"//{wildcard}:", f"//{local}:")
            return url
    return None


def not_started(model: Path, log: str, returncode: int, file: Path) -> TurbotoolError:
    """Why it ended before it listened, in a line."""
    lines = [COLOUR.sub("", line) for line in whole_lines(log)]
    see = f"see {file}"
    for line in lines:
        if match := UNBOUND.search(line):
            return _unbound(match["host"], int(match["port"]))
        if match := UNLOADED.search(line):
            message = f"{model}: llama-server cannot load it: {match['why']}"
            return ModelError(message, hint=f"download the model again, or name another; {see}")
    how = describe_exit(returncode)
    why = next((match for match in map(ERROR.match, lines) if match), None)
    if why is None:
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return BinaryFailed(f"llama-server ended with {how} before it was ready: {last}", how=how, hint=see)
    if why[0].startswith("error: "):
        return UsageMistake(f"llama-server does not take its options: {why['why']}", hint="llama-server --help")
    return BinaryFailed(f"llama-server ended with {how} before it was ready: {why['why']}", how=how, hint=see)


def _unbound(host: str, port: int) -> AddressUnavailable:
    why = _refusal(host, port) or "it was not free"
    free = next((other for other in range(port + 1, port + PORTS_TRIED) if not _refusal(host, other)), None)
    hint = f"another one: turbotool serve ... -- --port {free}" if free else "name another --host or --port behind --"
    return AddressUnavailable(f"llama-server cannot listen on {host}:{port}: {why}", hint=hint)


def _refusal(host: str, port: int) -> str:
    """What the system says to who would listen there; empty if it may."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", "") or error).lower()
    return ""
