"""The calibration that comes with the default model: put beside it once, and only as locked."""

from __future__ import annotations

from pathlib import Path

import pytest

from turbotool.errors import HashMismatch
from turbotool.inputs import default_model
from turbotool.inputs.default_model import place_calibration
from turbotool.inputs.gguf import read_header
from turbotool.kv.calibration import FILE_TYPE
from turbotool.layout import Layout, find_layout
from turbotool.system.digest import sha256_file
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "vendor" / "calibrations"
    folder.mkdir(parents=True)
    (folder / "m.kvcal.gguf").write_bytes(b"moments")
    return Session(Layout(tmp_path, tmp_path, tmp_path / "cache"), Output(quiet=True))


def digest(session: Session) -> str:
    return sha256_file(session.layout.root / "vendor" / "calibrations" / "m.kvcal.gguf")


def test_it_is_put_beside_the_model_once(session: Session, tmp_path: Path) -> None:
    target = tmp_path / "models" / "m.kvcal.gguf"
    place_calibration(session, target.with_name("m.gguf"), digest(session))
    assert target.read_bytes() == b"moments"
    target.write_bytes(b"the user's own")
    place_calibration(session, target.with_name("m.gguf"), digest(session))
    assert target.read_bytes() == b"the user's own"


def test_one_that_an_earlier_version_put_there_is_replaced(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "m.kvcal.gguf"
    target.parent.mkdir()
    target.write_bytes(b"of before")
    monkeypatch.setattr(default_model, "OUTDATED", frozenset({sha256_file(target)}))
    place_calibration(session, target.with_name("m.gguf"), digest(session))
    assert target.read_bytes() == b"moments"


def test_other_bytes_than_the_locked_ones_are_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(HashMismatch, match="the lock says 00"):
        place_calibration(session, tmp_path / "models" / "m.gguf", "00")
    assert not (tmp_path / "models").exists()


def test_a_model_whose_lock_names_none_has_none(session: Session, tmp_path: Path) -> None:
    place_calibration(session, tmp_path / "models" / "m.gguf", "")
    assert not (tmp_path / "models").exists()


def test_the_one_that_is_shipped_is_the_locked_one() -> None:
    layout = find_layout()
    locked = read_lock(layout).model
    assert locked is not None
    path = layout.root / "vendor" / "calibrations" / Path(locked.member).with_suffix(".kvcal.gguf").name
    assert sha256_file(path) == locked.calibration_sha256
    assert read_header(path).metadata["general.type"] == FILE_TYPE
