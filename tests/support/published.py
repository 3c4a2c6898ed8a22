"""Documents as others see them: what a command printed or a report holds, against the schemas that are published."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import schemas
from jsonschema import Draft202012Validator

from turbotool.system.documents import PREFIX, Kind, as_builtins, decode, json_schema


@cache
def kind(schema: str) -> tuple[Kind, Draft202012Validator]:
    """What a document is by the name in its header."""
    found = schemas.kinds()[schema.removeprefix(PREFIX)]
    return found, Draft202012Validator(json_schema(found))


def held(text: str) -> dict[str, Any]:
    """The one document in `text`: its schema allows it, and the reader gives back all of it, no more and no less."""
    found = json.loads(text)
    assert isinstance(found, dict)
    known, validator = kind(found["schema"])
    validator.validate(found)
    assert as_builtins(decode(text, known.of, "the text")) == found
    return found
