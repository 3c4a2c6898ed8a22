"""One file from an address or a folder, of a bounded size. Nothing that a server says is believed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from turbotool.errors import FetchError, UsageMistake
from turbotool.system.extras import require_library
from turbotool.system.files import space_guard

if TYPE_CHECKING:  # the command line imports this module to print its help
    import requests

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def is_address(place: str) -> bool:
    return "://" in place


def beside(place: str, suffix: str) -> str:
    """The place whose name is longer by `suffix`; what an address asks for (`?x`) goes along."""
    if not is_address(place):
        return place + suffix
    parts = urlsplit(place)
    return parts._replace(path=parts.path + suffix).geturl()


def file_name(place: str) -> str:
    """The name of a file at an address or a path. Raises UsageMistake unless it is a plain one."""
    name = unquote(urlsplit(place).path).rpartition("/")[2] if is_address(place) else Path(place).name
    if not NAME.fullmatch(name):
        raise UsageMistake(f"{place} names no file of a release", hint="name the archive itself, a .tar.gz or .zip")
    return name


def bring(place: str, folder: Path, limit: int) -> Path:
    """The file at `place`, copied into `folder` under its own name; at most `limit` bytes.

    Raises FetchError, UsageMistake for an address that is not allowed, ToolMissing without the library, NoSpace.
    """
    target = folder / file_name(place)
    if is_address(place):
        _download(place, target, limit)
        return target
    try:
        with Path(place).open("rb") as stream:
            _write(iter(lambda: stream.read(CHUNK), b""), target, limit, place)
    except OSError as error:
        raise FetchError(f"cannot read {place}: {error.strerror}", hint="name a file or an https address") from error
    return target


def _write(chunks: Iterable[bytes], target: Path, limit: int, place: str) -> None:
    done = 0
    with space_guard(target), target.open("xb") as stream:
        for chunk in chunks:
            done += len(chunk)
            if done > limit:
                raise FetchError(f"{place} is larger than {limit} bytes", hint="name the archive of a release")
            stream.write(chunk)


def _download(address: str, target: Path, limit: int) -> None:
    require_library("requests>=2.31", "fetch", "a release from an address needs")
    import requests

    with _session(_allowed(address)) as session:
        try:
            # as it is stored: a server that packs what is packed already would change the bytes
            words = {"Accept-Encoding": "identity"}
            with session.get(address, stream=True, timeout=TIMEOUT, headers=words) as response:
                response.raise_for_status()
                _write(_body(response), target, limit, address)
        except requests.exceptions.InvalidSchema as error:
            raise FetchError(f"{address} leads to an address that is not https", hint="name another one") from error
        except requests.RequestException as error:
            raise FetchError(f"cannot get {address}: {error}", hint="look at the address and at the network") from error


def _body(response: requests.Response) -> Iterator[bytes]:
    chunks: Iterator[bytes] = response.iter_content(CHUNK)
    return chunks


def _allowed(address: str) -> SplitResult:
    """The parts of an address. Raises UsageMistake unless it is https, or http on this machine."""
    try:
        parts = urlsplit(address)
        local = parts.hostname in LOOPBACK and parts.port is not None
    except ValueError as error:
        raise UsageMistake(f"{address} is no address: {error}", hint="https://...") from error
    if parts.scheme == "https" or (parts.scheme == "http" and local and "@" not in parts.netloc):
        return parts
    raise UsageMistake(
        f"{address} is not taken: https, or http on this machine with a port", hint="name an https address, or a file"
    )


def _session(parts: SplitResult) -> requests.Session:
    """Of requests, with nothing but https, so that no redirection leads elsewhere; and the server of this machine."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.adapters.clear()
    session.mount("https://", HTTPAdapter())
    if parts.scheme == "http":
        session.mount(f"http://{parts.netloc}/", HTTPAdapter())
    return session
