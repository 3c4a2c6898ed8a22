"""The text of a calibration: what is measured and what is held back share nothing, and every text is in both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from turbotool.calibration.passages import make_passages, require_passages
from turbotool.errors import CorpusError


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes texts to files."""

    def write(*texts: str) -> list[Path]:
        paths = [tmp_path / f"{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


def numbered(letter: str, count: int) -> str:
    return "".join(f"{letter}{number} is the number of this line.\n" for number in range(count))


def parts(texts: list[Path], ctx: int, sequences: int, chunks: int, folder: Path) -> tuple[str, str]:
    found = make_passages(texts, ctx, sequences, chunks, folder / "out")
    assert (found.measured.ctx, found.measured.chunks) == (ctx, sequences)
    if found.held is None:
        return found.measured.path.read_text(encoding="utf-8"), ""
    assert (found.held.ctx, found.held.chunks) == (ctx, chunks)
    return found.measured.path.read_text(encoding="utf-8"), found.held.path.read_text(encoding="utf-8")


def test_no_line_is_in_both_parts_and_all_are_in_one(written: Callable[..., list[Path]], tmp_path: Path) -> None:
    text = numbered("a", 100)
    measured, held = parts(written(text), 64, 8, 4, tmp_path)
    assert measured + held == text
    assert measured.endswith("\n")
    assert len(measured) / len(text) == pytest.approx(8 / 12, abs=0.02)


def test_without_a_check_all_of_it_is_measured(written: Callable[..., list[Path]], tmp_path: Path) -> None:
    text = numbered("a", 100)
    assert parts(written(text), 64, 8, 0, tmp_path) == (text, "")


def test_every_text_is_in_both_parts(written: Callable[..., list[Path]], tmp_path: Path) -> None:
    texts = [numbered("a", 3000), numbered("b", 100), numbered("c", 3000)]
    measured, held = parts(written(*texts), 64, 8, 4, tmp_path)
    lines = [{*part.splitlines()} for part in (measured, held)]
    assert not lines[0] & lines[1]
    first = {line[0] for line in measured[: 64 * 8 * 4].splitlines()}
    assert first == {"a", "b", "c"}
    assert {line[0] for line in held.splitlines()} >= {"a", "c"}


def test_what_no_tokens_could_need_is_left_out(written: Callable[..., list[Path]], tmp_path: Path) -> None:
    measured, held = parts(written(numbered("a", 100_000)), 64, 8, 4, tmp_path)
    assert len(measured) == 16 * 64 * 8
    assert len(held) == 16 * 64 * 4


@pytest.mark.parametrize("text", ["x" * 5000, "ä" * 5000, "word " * 1000])
def test_a_text_without_lines_is_divided_between_words_or_anywhere(
    written: Callable[..., list[Path]], tmp_path: Path, text: str
) -> None:
    measured, held = parts(written(text), 128, 2, 2, tmp_path)
    assert measured + held == text
    assert " " not in text or measured.endswith(" ")
    assert held


def test_a_text_that_cannot_have_the_tokens_is_refused_with_their_number(written: Callable[..., list[Path]]) -> None:
    texts = written("x" * 766)  # with the BOS one token less than is needed
    with pytest.raises(CorpusError, match=r"at most 767 tokens; 8 sequences of 64 tokens .* need 768"):
        require_passages(texts, 64, 8, 4)
    require_passages(texts, 64, 8, 3)
    require_passages(written("x" * 767), 64, 8, 4)
    require_passages(written("x" * 400, "x" * 367), 64, 8, 4)
