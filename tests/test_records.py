"""Files that one run leaves for the next: what is written reads back, and damage is an error of one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from turbotool.errors import DocumentError
from turbotool.system.documents import decode, document, encode


@document("test-of-text")
@dataclass(frozen=True)
class Texts:
    names: Mapping[str, str]


def test_a_name_that_is_no_utf8_is_written_as_utf8_and_reads_back_the_same() -> None:
    written = encode(Texts({"caf\udce9": "é"}))
    assert "é" in written.decode("utf-8")
    assert decode(written, Texts, "here") == Texts({"caf\udce9": "é"})


def test_a_field_whose_name_is_no_text_is_an_error_of_the_document() -> None:
    damaged = json.dumps({"schema": "turbotool.test-of-text", "version": 1, "names": {}, "\ud800": 1})
    with pytest.raises(DocumentError, match="a field's name is no text"):
        decode(damaged, Texts, "here")
