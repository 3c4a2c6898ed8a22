"""Names are added, never changed: commands, options, exit codes and fields are those of the last release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import reference
import schemas

from turbotool.system.documents import json_schema

RELEASE = json.loads((Path(__file__).parent / "names-0.1.0.json").read_text(encoding="utf-8"))
COMMANDS = {one.words: one.command for one in reference.commands()}


def options_of(command: click.Command) -> set[str]:
    return {
        word for one in command.params if isinstance(one, click.Option) for word in (*one.opts, *one.secondary_opts)
    }


@pytest.mark.parametrize("words", RELEASE["commands"])
def test_every_command_has_the_options_that_it_had(words: str) -> None:
    assert words in COMMANDS
    assert set(RELEASE["commands"][words]) <= options_of(COMMANDS[words])


def test_every_error_has_the_exit_code_that_it_had() -> None:
    codes = {error.__name__: error.exit_code for error in reference.classes()}
    assert {name: codes.get(name) for name in RELEASE["exit_codes"]} == RELEASE["exit_codes"]


def has(schema: Mapping[str, Any], path: list[str], parts: Mapping[str, Any]) -> bool:
    """Whether a document of that schema may have a field at the path; lists are passed through."""
    if "$ref" in schema:
        return has(parts[schema["$ref"].rpartition("/")[2]], path, parts)
    if "anyOf" in schema:
        return any(has(one, path, parts) for one in schema["anyOf"])
    if "items" in schema:
        return has(schema["items"], path, parts)
    if not path:
        return True
    if path[0] in schema.get("properties", {}):
        return has(schema["properties"][path[0]], path[1:], parts)
    others = schema.get("additionalProperties", "properties" not in schema and schema.get("type") == "object")
    return has(others, path[1:], parts) if isinstance(others, Mapping) else bool(others)


@pytest.mark.parametrize("name", RELEASE["documents"])
def test_every_document_has_the_fields_that_it_had(name: str) -> None:
    schema = json_schema(schemas.kinds()[name])
    lost = [path for path in RELEASE["documents"][name] if not has(schema, path.split("."), schema.get("$defs", {}))]
    assert lost == []


def test_a_field_that_a_document_never_had_is_missed() -> None:
    schema = json_schema(schemas.kinds()["verify"])
    parts = schema["$defs"]
    assert has(schema, ["checks", "value"], parts)
    assert not has(schema, ["checks", "worth"], parts)
    assert not has(schema, ["tests"], parts)
