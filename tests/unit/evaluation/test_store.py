"""The store of measurements: what is in it stays, and a damaged file is kept aside."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_model import known_model
from known_results import MEASURED

from turbotool.errors import StoreError, UnknownCacheType
from turbotool.evaluation import store as stores
from turbotool.evaluation.cell import KEY_VERSION, Configuration, Measured, Origin, parse_rotations
from turbotool.evaluation.measurement import MeasurementDocument, measurement, of_version_1
from turbotool.evaluation.store import look_into_store, open_store
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import AUTO, Calibration
from turbotool.kv.effective import Calibrated
from turbotool.kv.rotation import ROTATIONS
from turbotool.programs.divergence import Estimate
from turbotool.system.digest import sha256_file
from turbotool.system.documents import decode, encode, json_schema, kind_of
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
    file = replace(cell, calibration=Calibration("f", Path("f"), "f"))
    others = [Origin(**{**fields, name: "x" if isinstance(old, str) else 7}) for name, old in fields.items()]
    keys = [origin.key(file) for origin in (ORIGIN, *others)]
    keys += [ORIGIN.key(Configuration(cell.pair, rotation)) for rotation in ROTATIONS if rotation != "off"]
    keys += [ORIGIN.key(Configuration(CachePair("turbo4", "q8_0"))), ORIGIN.key(cell, repeat=1)]
    keys += [ORIGIN.key(replace(cell, calibration=AUTO)), replace(ORIGIN, calibration="f").key(file)]
    assert len(set(keys)) == len(keys) == 14
    assert ORIGIN.key(cell) == replace(ORIGIN).key(Configuration(CachePair.parse("q8_0/turbo4")))


def test_the_key_of_a_cell_is_the_one_that_it_always_had() -> None:
    """What was measured under it stays known to later versions."""
    assert KEY_VERSION == 1
    assert ORIGIN.key(Configuration(CachePair("q8_0", "turbo4"))).startswith("ef055cbe93f20a75")


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
        store.connection.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="schema 3, newer than 2"), open_store(path, QUIET):
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


def test_a_calibration_comes_back_and_what_was_kept_before_there_was_any_has_none(tmp_path: Path) -> None:
    ran = (Calibrated(True, "q8_0", 2, "ab" * 8, 512, "measured on 256 tokens"),)
    calibrated = replace(MEASURED, effective=replace(MEASURED.effective, calibrations=ran))
    with open_store(tmp_path / "s", QUIET) as store:
        store.keep("key", "about", calibrated)
        assert store.measured("key") == calibrated
        row = edited(lambda row: row["effective"].pop("calibrations"))
        store.connection.execute("INSERT INTO measured VALUES ('old', '', ?)", (row,))
        assert store.measured("old") == MEASURED


def edited(edit: Callable[[dict[str, Any]], object]) -> str:
    """A row with something changed in it."""
    fields = json.loads(encode(measurement(MEASURED)))
    edit(fields)
    return json.dumps(fields)


@pytest.mark.parametrize(
    "row",
    [
        "",
        "{",
        json.dumps({"kld": 1}),
        edited(lambda row: row["divergence"].pop("mean")),
        edited(lambda row: row["divergence"]["mean"].update(value="0.1")),
        edited(lambda row: row["effective"]["caches"][0].pop("mib")),
        edited(lambda row: row.update(version=2)),
        edited(lambda row: row.update(schema="turbotool.eval")),
    ],
)
def test_a_row_that_is_damaged_or_newer_counts_as_not_measured(tmp_path: Path, row: str) -> None:
    with open_store(tmp_path / "s", QUIET) as store:
        store.connection.execute("INSERT INTO measured VALUES ('key', '', ?)", (row,))
        assert store.measured("key") is None
        store.keep("key", "about", MEASURED)
        assert store.measured("key") == MEASURED


def test_a_row_is_a_document_that_any_reader_of_json_takes() -> None:
    odd = replace(MEASURED, divergence=replace(MEASURED.divergence, mean=Estimate(float("nan"), float("inf"))))
    row = encode(measurement(odd), indent=None)

    def refuse(word: str) -> None:
        raise ValueError(word)

    fields = json.loads(row, parse_constant=refuse)
    assert (fields["schema"], fields["version"]) == ("turbotool.measurement", 1)
    assert fields["divergence"]["mean"] == {"value": "nan", "error": "inf"}
    assert decode(row, MeasurementDocument, "row") == measurement(odd)
    jsonschema.Draft202012Validator(json_schema(kind_of(MeasurementDocument))).validate(fields)


def left_by_0_1_0(path: Path, rows: Mapping[str, str]) -> None:
    """A store as turbotool 0.1.0 left it."""
    with open_store(path, QUIET) as store:
        store.keep_answer("question", "answer")
        with store.connection:
            store.connection.executemany("INSERT INTO measured VALUES (?, 'about', ?)", rows.items())
        store.connection.execute("PRAGMA user_version = 1")


def written_by_0_1_0(measured: Measured, **others: object) -> str:
    effective = asdict(measured.effective)
    del effective["calibrations"]
    fields = {"divergence": asdict(measured.divergence), "effective": effective, "seconds": 1.5}
    return json.dumps({**fields, **others})


def test_what_turbotool_0_1_0_measured_is_kept(tmp_path: Path) -> None:
    odd = replace(MEASURED, divergence=replace(MEASURED.divergence, mean=Estimate(float("inf"), float("-inf"))))
    rows = {
        "key": written_by_0_1_0(MEASURED, machine="a machine"),
        "odd": written_by_0_1_0(odd),
        "damaged": "{",
    }
    assert "-Infinity" in rows["odd"]
    left_by_0_1_0(tmp_path / "s", rows)
    for _ in range(2):
        with open_store(tmp_path / "s", QUIET) as store:
            assert store.measured("key") == replace(MEASURED, machine="a machine")
            assert store.measured("odd") == odd
            assert store.measured("damaged") is None
            assert store.answer("question") == "answer"
            assert store.connection.execute("PRAGMA user_version").fetchone() == (2,)
            kept = store.connection.execute("SELECT about, value FROM measured WHERE key = 'key'").fetchone()
            assert (kept[0], json.loads(kept[1])["schema"]) == ("about", "turbotool.measurement")
    assert not list(tmp_path.glob("*damaged*"))


def test_a_migration_that_is_killed_leaves_the_older_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a": written_by_0_1_0(MEASURED), "b": written_by_0_1_0(MEASURED)}
    left_by_0_1_0(tmp_path / "s", rows)
    left = iter(["first"])

    def killed(text: str) -> str:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return of_version_1(text) or ""

    monkeypatch.setattr(stores, "of_version_1", killed)
    with pytest.raises(KeyboardInterrupt), open_store(tmp_path / "s", QUIET):
        pass
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "s") as kept:
        assert dict(kept.execute("SELECT key, value FROM measured").fetchall()) == rows
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
    with open_store(tmp_path / "s", QUIET) as store:
        assert store.measured("a") == store.measured("b") == MEASURED


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


def keep_described(path: Path, key: str, origin: Origin, cell: Configuration) -> None:
    with open_store(path, QUIET) as store:
        store.keep(key, "about", MEASURED)
        store.describe(key, origin, cell)


def test_what_was_measured_of_a_model_is_found_without_its_text(tmp_path: Path) -> None:
    path, cell = tmp_path / "s", Configuration(CachePair("q8_0", "turbo4"), "v", replace(AUTO, sha256="f"))
    keep_described(path, "one", replace(ORIGIN, calibration="f"), cell)
    keep_described(path, "two", replace(ORIGIN, model="another"), cell)
    with look_into_store(path) as store:
        assert store is not None
        (found,) = store.cells(ORIGIN.model)
        assert (found.origin, found.configuration) == (replace(ORIGIN, calibration="f"), cell)
        assert found.measured == MEASURED


def test_looking_into_a_store_neither_makes_nor_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "s p?#ce"
    with look_into_store(path) as nothing:
        assert nothing is None
    assert not path.exists()
    keep_described(path, "one", ORIGIN, Configuration(CachePair("q8_0", "q8_0")))
    before = path.read_bytes()
    with open_store(path, QUIET) as writer, look_into_store(path) as store:  # while an evaluation has it open
        writer.describe("two", ORIGIN, Configuration(CachePair("q4_0", "q4_0")))
        assert store is not None
        with pytest.raises(StoreError, match="readonly"):
            store.keep_answer("a", "b")
        assert [str(one.configuration.pair) for one in store.cells(ORIGIN.model)] == ["q8_0/q8_0"]
        assert store.measured("one") == MEASURED
    assert path.read_bytes() != before  # by the writer


def test_a_store_of_an_older_turbotool_is_none_to_look_into_until_an_evaluation_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    keep_described(path, "one", ORIGIN, Configuration(CachePair("q8_0", "q8_0")))
    with sqlite3.connect(path) as old:
        old.execute("DROP TABLE cells")
    with look_into_store(path) as store:
        assert store is None
    with open_store(path, QUIET) as opened:
        assert opened.measured("one") == MEASURED
    with look_into_store(path) as store:
        assert store is not None
        assert store.cells(ORIGIN.model) == []


def test_a_damaged_store_is_told_to_who_looks_into_it(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("not a database" * 100)
    with pytest.raises(StoreError, match="not a database"), look_into_store(tmp_path / "s"):
        pass


@pytest.mark.parametrize("column", ["ctx", "k", "rotation"])
def test_a_description_that_is_not_understood_is_passed_over(tmp_path: Path, column: str) -> None:
    path = tmp_path / "s"
    keep_described(path, "one", ORIGIN, Configuration(CachePair("q8_0", "q8_0")))
    with sqlite3.connect(path) as damaged:
        damaged.execute(f"UPDATE cells SET {column} = 'what'")  # noqa: S608 (our own names)
    with look_into_store(path) as store:
        assert store is not None
        assert store.cells(ORIGIN.model) == []


def test_the_sha256_of_a_file_is_known_only_as_long_as_it_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("one")
    with open_store(tmp_path / "s", QUIET) as store:
        assert store.known_sha256(file) is None
        assert store.sha256(file) == store.known_sha256(file)
        file.write_text("another")
        assert store.known_sha256(file) is None
