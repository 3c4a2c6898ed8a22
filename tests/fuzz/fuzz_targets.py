"""What a fuzzer calls: a target reads hostile bytes with our parsers and says what must hold whatever they are.

A target returns normally for any input. Anything else is a defect: an exception that the parser does not declare, a
promise that is broken (AssertionError), too much time, or too much memory.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from turbotool.build import compiler_error
from turbotool.errors import ArchiveError, BinaryFailed, ModelError
from turbotool.inputs.metadata import MAX_LAYERS
from turbotool.inputs.model import read_model
from turbotool.kv.effective import parse_effective
from turbotool.programs import completion, llamabench
from turbotool.programs.divergence import parse_chunks, parse_divergence, parse_final, parse_running, parse_too_short
from turbotool.system.archive import Limits, read_member, read_text, unpack
from turbotool.verify.checks.upstream import parse_cases

LIMITS = Limits(members=500, total=1 << 22, ratio=120.0)
PROMPT = "Two plus two equals"
LONGEST = 1 << 15  # characters of a log that a short input is repeated to


def archive(data: bytes) -> None:
    """Nothing leaves the target folder, no limit is passed, and damage is an ArchiveError."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        path = Path(name, "archive")
        path.write_bytes(data)
        for number, subdir in enumerate(("", "top")):
            folder = Path(name, f"to{number}")
            with contextlib.suppress(ArchiveError):
                unpack(path, folder, subdir=subdir, limits=LIMITS)
                _check_unpacked(folder)
        with contextlib.suppress(ArchiveError):
            assert len(read_text(path, "top/HEAD", limit=64)) <= 64
        with contextlib.suppress(ArchiveError):
            read_member(path, "top/HEAD", Path(name, "member"), limit=1 << 16)
        assert not Path(name, "member").exists() or Path(name, "member").stat().st_size <= 1 << 16
        assert {item.name for item in Path(name).iterdir()} <= {"archive", "to0", "to1", "member"}


def _check_unpacked(folder: Path) -> None:
    root, size, count = folder.resolve(), 0, 0
    for item in folder.rglob("*"):
        assert item.resolve().is_relative_to(root), f"{item} leads out of the folder"
        assert item.name.casefold() != ".git"
        count += not item.is_dir()
        if item.is_file() and not item.is_symlink():
            size += item.stat().st_size
            assert item.stat().st_mode & 0o7777 in (0o644, 0o755)
    assert size <= LIMITS.total
    assert count <= LIMITS.members


def gguf_header(data: bytes) -> None:
    """A model has dimensions that a KV cache can be computed from, or is refused as a ModelError."""
    with tempfile.NamedTemporaryFile(prefix="fuzz-", suffix=".gguf") as file:
        file.write(data)
        file.flush()
        try:
            model = read_model(Path(file.name))
        except ModelError:
            return
    for cache in model.kv.caches:
        assert 0 < len(cache.k) <= MAX_LAYERS
        assert len(cache.v) in (0, len(cache.k))
        assert all(type(size) is int and 0 <= size < 1 << 64 for size in (*cache.k, *cache.v))
    assert all(0 <= size < 1 << 32 for size in (model.head_dim_k, model.head_dim_v))  # 0: a model without heads
    assert 0 < model.n_ctx_train < 1 << 32


def log(data: bytes) -> None:
    """Every log parser takes any text; what stands after the last line break changes nothing in whole-line parsers.

    The first byte says how often the rest is repeated: time must grow with length, not with its square.
    """
    text = data[1:].decode("utf-8", errors="replace")
    if data[:1] > b"\x80" and text:
        text *= min(1 << (data[0] & 15), max(1, LONGEST // len(text)))
    for parser in WHOLE_LINE_PARSERS:
        assert repr(parser(text)) == repr(parser(text[: text.rfind("\n") + 1])), parser.__name__
    for record in llamabench.parse_records(text):
        assert all(llamabench.Sample(1, ns).tokens_per_second > 0 for ns in record.ns)
    parse_chunks(text)
    with contextlib.suppress(BinaryFailed):
        completion.parse_answer(text, PROMPT)
    completion.parse_completion(text)
    error = compiler_error.first_error(text)
    assert error is None or len(error.message) <= compiler_error.MAX_MESSAGE
    compiler_error.advice(error, "build.log")
    compiler_error.no_space(text)


WHOLE_LINE_PARSERS: tuple[Callable[[str], object], ...] = (
    parse_effective,
    parse_divergence,
    parse_running,
    parse_too_short,
    parse_final,
    completion.parse_tokens,
    llamabench.parse_records,
    parse_cases,
)
TARGETS: Mapping[str, Callable[[bytes], None]] = {"archive": archive, "gguf_header": gguf_header, "log": log}
CORPUS = Path(__file__).parent / "corpus"


def seeds(target: str) -> list[Path]:
    """The committed inputs of a target, in a fixed order."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
