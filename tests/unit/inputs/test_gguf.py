"""A model file's header: typed metadata from a good one, a clear error in bounded time from any other."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import gguf, key_array, key_u32, text, write

from turbotool.errors import ModelError
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.gguf import read_header
from turbotool.inputs.model import read_model
from turbotool.inputs.shape import CacheShape, KvShape
from turbotool.layout import Layout
from turbotool.system.output import Output
from turbotool.system.session import Session


def test_a_model_gives_what_the_size_of_its_cache_depends_on(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, gguf()))
    assert (model.arch, model.head_dim_k, model.head_dim_v, model.n_ctx_train) == ("llama", 64, 64, 2048)
    assert model.kv == KvShape((CacheShape((64, 64), (64, 64)),), (64,), (64,))


def test_kv_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    model = read_model(write(tmp_path, gguf(key_array("llama.attention.head_count_kv", [2, 0]))))
    assert model.kv.caches == (CacheShape((128, 0), (128, 0)),)


def test_kv_heads_for_another_number_of_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="3 values for 2 layers"):
        read_model(write(tmp_path, gguf(key_array("llama.attention.head_count_kv", [1, 1, 1]))))


def test_a_file_cut_in_its_tensor_data_is_truncated(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"truncated: tensor output\.weight"):
        read_header(write(tmp_path, gguf()[:-1]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_a_model_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = gguf()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ModelError):
        read_header(write(tmp_path_factory.mktemp("cut"), whole[:cut]))


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=400), st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_damaged_bytes_give_a_model_or_a_model_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, at: int, patch: bytes
) -> None:
    whole = bytearray(gguf())
    whole[at : at + len(patch)] = patch
    path = write(tmp_path_factory.mktemp("bytes"), bytes(whole) + tail)
    try:
        read_model(path)
    except ModelError as error:
        assert str(path) in error.message


HUGE = 1 << 62
HOSTILE = {
    "not GGUF": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "unknown version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "tensor count": b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    "key count": b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    "string length": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE) + bytes(64),
    "string length overflow": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, (1 << 64) - 1) + bytes(64),
    "array length": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, HUGE),
    "array of strings": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 22),
    "nested array": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64),
    "unknown value type": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77) + bytes(64),
    "dimensions": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 1 << 31) + bytes(64),
    "tensor size": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQQIQ", 2, HUGE, HUGE, 0, 0),
    "tensor offset": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 4, 0, HUGE),
    "alignment": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key_u32("general.alignment", 0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = write(tmp_path, HOSTILE[what])
    started = time.monotonic()
    with pytest.raises(ModelError):
        read_header(path)
    assert time.monotonic() - started < 1


def test_a_huge_sparse_file_of_empty_strings_is_refused_in_bounded_time(tmp_path: Path) -> None:
    path = write(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 16))
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)
    started = time.monotonic()
    with pytest.raises(ModelError):
        read_model(path)
    assert time.monotonic() - started < 5


def test_a_claim_of_four_billion_layers_costs_no_memory(tmp_path: Path) -> None:
    data = gguf().replace(key_u32("llama.block_count", 2), key_u32("llama.block_count", (1 << 32) - 1))
    with pytest.raises(ModelError, match="more than 4096"):
        read_model(write(tmp_path, data))


def test_a_model_named_from_here_is_found_by_programs_that_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, gguf())
    monkeypatch.chdir(path.parent)
    layout = Layout(tmp_path, tmp_path, tmp_path)
    assert choose_model(Session(layout, Output(quiet=True)), Path(path.name)).path == path


def test_a_missing_model_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "none.gguf")
    assert "name a GGUF file" in (caught.value.hint or "")
