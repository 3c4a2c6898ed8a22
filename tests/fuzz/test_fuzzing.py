"""The fuzz targets on the committed corpus, on what fuzzing once broke, and for a while on new inputs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz_targets import CORPUS, TARGETS, seeds

from turbotool.build import compiler_error
from turbotool.errors import ArchiveError
from turbotool.kv.effective import Effective, parse_effective
from turbotool.programs import completion
from turbotool.programs.divergence import parse_chunks
from turbotool.programs.llamabench import parse_records
from turbotool.system.archive import read_member, unpack

ROOT = Path(__file__).parents[2]
SECONDS = 20  # of CPU time for each target
CORPUS_BYTES = 512 << 10


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_keeps_every_promise(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths = seeds(target)
    assert len(paths) > 3
    for path in paths:
        TARGETS[target](path.read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < CORPUS_BYTES


def test_a_member_without_a_name_is_an_archive_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(CORPUS / "archive/found-member-without-a-name.zip", tmp_path / "to")


def test_a_header_before_the_beginning_of_the_file_is_an_archive_error(tmp_path: Path) -> None:
    data = bytearray((CORPUS / "archive/stored.zip").read_bytes())
    start = struct.unpack_from("<I", data, len(data) - 6)[0]  # where the list of members begins, in the last record
    struct.pack_into("<I", data, len(data) - 6, start + 40)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "to")


def test_a_single_member_is_not_unpacked_by_a_method_that_may_ask_for_any_memory(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="unsupported compression"):
        read_member(CORPUS / "archive/bzip2.zip", "top/HEAD", tmp_path / "to", limit=100)


MANY = "9" * 5000  # digits; int() refuses more than 4,300


@pytest.mark.parametrize(
    "line",
    [
        f"llama_kv_cache: size = 1.00 MiB ( {MANY} cells, 2 layers, 1/1 seqs), K (f16): 1.00 MiB, V (f16): 1.00 MiB",
        "llama_kv_cache: size = 1.2.3 MiB (  512 cells, 2 layers, 1/1 seqs), K (f16): 1.00 MiB, V (f16): 1.00 MiB",
        "llama_kv_cache:        CPU KV buffer size = . MiB",
        f"llama_context: n_ctx = {MANY}",
    ],
)
def test_a_number_that_is_none_is_no_value_of_a_cache(line: str) -> None:
    assert parse_effective(f"{line}\n") == Effective()


def test_numbers_of_thousands_of_digits_are_no_values() -> None:
    assert parse_chunks(f"[{MANY}]1.5,") == ()
    assert completion.parse_tokens(f"common_perf_print: eval time = 1 ms / {MANY} runs\n") is None
    assert compiler_error.first_error(f"a.c:{MANY}:1: error: x\n") == compiler_error.CompilerError(None, None, "x")
    record = (ROOT / "tests/data/llama-bench.jsonl").read_text().splitlines()[0]
    assert len(parse_records(f"{record}\n")) == 1
    start = record.index('"samples_ns": [') + len('"samples_ns": [')
    assert parse_records(f"{record[:start]}{10**400}{record[record.index(']', start) :]}\n") == ()


@pytest.mark.parametrize("text", ["ld" * 50_000, "1" * 100_000, "attn_rot_k: on, type x (" * 20_000 + "\n"])
def test_time_grows_with_length_not_with_its_square(text: str) -> None:
    started = time.process_time()
    compiler_error.first_error(text)
    completion.parse_completion(f"generate: n_ctx =\n{text}\ncommon_perf_print:\n")
    parse_effective(text)
    assert time.process_time() - started < 2


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_for_a_while_finds_nothing(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    script = str(ROOT / "tests/fuzz/fuzz.py")
    command = [sys.executable, script, target, "--seconds", str(SECONDS), "--work", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]  # atheris tells an exception on stdout
    assert f"{target}: " in done.stdout
    print(done.stdout.splitlines()[-1])
