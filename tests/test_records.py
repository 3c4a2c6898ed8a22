"""Files that one run leaves for the next: what is written reads back, and damage is an error of one line."""

from __future__ import annotations

import json

import pytest

from turbotool.build.stamps import Stamps
from turbotool.errors import DocumentError
from turbotool.system.documents import decode, encode


def test_a_name_that_is_no_utf8_is_written_as_utf8_and_reads_back_the_same() -> None:
    stamps = Stamps({"caf\udce9": ("é", 1)})
    written = encode(stamps)
    assert "é" in written.decode("utf-8")
    assert decode(written, Stamps, "here") == stamps


def test_a_field_whose_name_is_no_text_is_an_error_of_the_document() -> None:
    damaged = json.dumps({"schema": "turbotool.stamps", "version": 1, "files": {}, "\ud800": 1})
    with pytest.raises(DocumentError, match="a field's name is no text"):
        decode(damaged, Stamps, "here")
