"""The store of measurements: what is in it stays, and a damaged file is kept aside."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_model import known_model
from known_results import MEASURED

from turbotool.errors import StoreError, UnknownCacheType
from turbotool.evaluation import store as stores
from turbotool.evaluation.cell import Configuration, Origin, parse_rotations
from turbotool.evaluation.store import open_store
from turbotool.kv.cachetype import CachePair
from turbotool.kv.rotation import ROTATIONS
from turbotool.programs.divergence import Estimate
from turbotool.system.digest import sha256_file
from turbotool.system.output import Output

QUIET = Output(quiet=True)
ORIGIN = Origin("b" * 64, "m" * 64, "c" * 64, 512, 4)


def test_a_measurement_comes_back_as_it_was(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", QUIET) as store:
        store.keep("key", "about", MEASURED)
    with open_store(tmp_path / "s", QUIET) as store:
        assert store.measured("key") == MEASURED
        assert store.measured("other") is None


def test_what_is_not_finite_comes_back_as_it_was(tmp_path: Path) -> None:
    odd = replace(MEASURED, divergence=replace(MEASURED.divergence, mean=Estimate(float("inf"), float("-inf"))))
    with open_store(tmp_path / "s", QUIET) as store:
        store.keep("key", "about", odd)
        assert store.measured("key") == odd
    assert not odd.is_finite
    assert MEASURED.is_finite


def test_everything_that_a_measurement_depends_on_is_in_its_key() -> None:
    cell = Configuration(CachePair("q8_0", "turbo4"))
    fields = asdict(ORIGIN)
    others = [Origin(**{**fields, name: "x" if isinstance(old, str) else 7}) for name, old in fields.items()]
    keys = [origin.key(cell) for origin in (ORIGIN, *others)]
    keys += [ORIGIN.key(Configuration(cell.pair, rotation)) for rotation in ROTATIONS if rotation != "off"]
    keys += [ORIGIN.key(Configuration(CachePair("turbo4", "q8_0"))), ORIGIN.key(cell, repeat=1)]
    assert len(set(keys)) == len(keys) == 11
    assert ORIGIN.key(cell) == replace(ORIGIN).key(Configuration(CachePair.parse("q8_0/turbo4")))


def test_a_killed_process_leaves_what_it_committed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from turbotool.evaluation.store import open_store; "
        "from turbotool.system.output import Output\n"
        "with open_store(Path(sys.argv[1]), Output()) as store:\n"
        "    store.keep_answer('first', 'x')\n"
        "    store.connection.execute(\"INSERT INTO answers VALUES ('second', 'y')\")\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=False, timeout=60)
    with open_store(tmp_path / "s", QUIET) as store:
        assert (store.answer("first"), store.answer("second")) == ("x", None)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_file_with_any_damage_gives_what_was_kept_or_is_moved_aside(tmp_path: Path, data: st.DataObject) -> None:
    """Cut or overwritten anywhere: no exception, no other value, and no byte of the old file is lost."""
    path = tmp_path / "s"
    for old in tmp_path.iterdir():
        old.unlink()
    with open_store(path, QUIET) as store:
        store.keep("key", "about", MEASURED)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] if data.draw(st.booleans()) else whole[:at] + bytes(64) + whole[at + 64 :]
    path.write_bytes(damaged)
    try:
        with open_store(path, QUIET) as store:
            assert store.measured("key") in (None, MEASURED)
            store.keep("key", "about", MEASURED)
            assert store.measured("key") == MEASURED
    except StoreError:  # damage that only shows when the row is read; the file is left as it is
        assert path.read_bytes() == damaged
        return
    asides = [other for other in tmp_path.iterdir() if "damaged" in other.name]
    assert [other.read_bytes() for other in asides] in ([], [damaged])


def test_a_file_that_is_no_store_is_kept_beside_the_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    for number in (1, 2):
        path.write_text(f"not a database {number}" * 100)
        with open_store(path, Output()) as store:
            store.keep_answer("a", "b")
        kept = tmp_path / f"s.damaged-{number}"
        assert kept.read_text().startswith(f"not a database {number}")
        assert f"is damaged; it is kept as {kept}" in capsys.readouterr().err


def test_the_database_of_another_program_is_not_written_into(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as theirs:
        theirs.execute("CREATE TABLE recipes (name TEXT)")
    with open_store(tmp_path / "s", QUIET) as store:
        assert store.answer("a") is None
    with sqlite3.connect(tmp_path / "s.damaged-1") as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


def test_the_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open_store(path, QUIET) as store:
        store.connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema 2, newer than 1"), open_store(path, QUIET):
        pass
    assert path.read_bytes() == before


def test_a_locked_store_is_not_taken_for_a_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    with open_store(path, QUIET):
        pass
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name: connect(name, timeout=0))
    with connect(path) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"), open_store(path, QUIET):
            pass
    assert not list(tmp_path.glob("*damaged*"))


def test_a_row_of_an_older_meaning_counts_as_not_measured(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", QUIET) as store:
        store.connection.execute("INSERT INTO measured VALUES ('key', '', ?)", (json.dumps({"kld": 1}),))
        assert store.measured("key") is None


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    hashed: list[Path] = []
    real = sha256_file

    def watched(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(stores, "sha256_file", watched)
    with open_store(tmp_path / "s", QUIET) as store:
        first = store.sha256(file)
        assert store.sha256(file) == first
        assert len(hashed) == 1
        file.write_bytes(b"two")
        os.utime(file, ns=(1, 1))
        assert store.sha256(file) != first


def test_rotations_are_read_once_each_and_unknown_ones_refused() -> None:
    assert parse_rotations("off, KV,off") == ("off", "kv")
    with pytest.raises(UnknownCacheType, match="unknown rotation 'q'"):
        parse_rotations("off,q")


def test_bits_per_value_count_both_sides_and_padding() -> None:
    cell = Configuration(CachePair("q8_0", "turbo4"))
    assert cell.bits_per_value(known_model()) == (8.5 + 4.25) / 2
    assert cell.bits_per_value(known_model(head_dim_v=96)) == 8 * (68 + 2 * 34) / (64 + 96)
