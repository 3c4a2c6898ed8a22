"""Documents are read strictly: another kind, version or shape is an error of one line with its own code."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemas
from jsonschema import Draft202012Validator
from msgspec import UNSET, UnsetType

from turbotool.errors import DocumentError, TurbotoolError
from turbotool.system.documents import Kind, as_builtins, decode, document, encode, json_schema, read

MUTATIONS = 1000
OTHERS: tuple[Any, ...] = ("a text", 7, 1.5, True, None, [], {}, [[]])  # a value of each type of JSON, some twice


@dataclass(frozen=True)
class Part:
    """A part."""

    name: str
    size: float | None


@document("test-sample")
@dataclass(frozen=True)
class Sample:
    """A document of this test."""

    ok: bool
    parts: tuple[Part, ...]
    notes: dict[str, int]
    error: str | UnsetType = UNSET


SAMPLE = Sample(True, (Part("a", 1.0), Part("b", None)), {"x": 1})


def test_a_document_comes_back_as_it_was() -> None:
    assert decode(encode(SAMPLE), Sample, "here") == SAMPLE
    assert list(json.loads(encode(SAMPLE))) == ["schema", "version", "ok", "parts", "notes"]


def test_what_is_not_finite_is_null() -> None:
    infinite = Sample(True, (Part("a", float("inf")),), {})
    assert json.loads(encode(infinite))["parts"] == [{"name": "a", "size": None}]


def test_fields_that_are_not_known_are_passed_over() -> None:
    fields = {**as_builtins(SAMPLE), "added": "later"}
    assert decode(json.dumps(fields), Sample, "here") == SAMPLE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "here is of version 2 of turbotool.test-sample, newer than 1 of this turbotool"),
        ({"version": 0}, "here is of version 0 of turbotool.test-sample, older than 1 of this turbotool"),
        ({"version": True}, "its version is True"),
        ({"schema": "turbotool.other"}, "its schema is 'turbotool.other'"),
        ({"ok": 1}, "Expected `bool`, got `int` - at `$.ok`"),
        ({"parts": [{"name": "a"}]}, "missing required field `size` - at `$.parts[0]`"),
        ({"notes": {"x": "1"}}, "at `$.notes[...]`"),
    ],
)
def test_what_is_wrong_is_named(change: Mapping[str, Any], says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode(json.dumps({**as_builtins(SAMPLE), **change}), Sample, "here")
    assert says in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"schema": ' * 100_000])
def test_what_is_no_document_at_all_is_told_in_one_line(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode(text, Sample, "here")
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"cannot read .*: No such file"):
        read(tmp_path / "none", Sample)


KINDS = {name: kind for name, kind in schemas.kinds().items() if kind.of is not Sample}


def example(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    """A value that the schema allows, with every field and one element in each list."""
    if "$ref" in schema:
        return example(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], parts)
    if schema.get("type") == "object":
        others = schema.get("additionalProperties")
        named = {name: example(one, parts) for name, one in schema.get("properties", {}).items()}
        return {**named, "key": example(others, parts)} if isinstance(others, Mapping) else named
    if schema.get("type") == "array":
        listed = schema.get("prefixItems") or [schema.get("items") or {}]
        return [example(one, parts) for one in listed]
    plain = {"string": "text", "integer": 3, "number": 1.5, "boolean": True, "null": None}
    return schema["const"] if "const" in schema else schema.get("enum", [plain.get(schema.get("type", ""))])[0]


def example_of(kind: Kind) -> dict[str, Any]:
    schema = json_schema(kind)
    found = example(schema, schema.get("$defs", {}))
    assert isinstance(found, dict)
    return found


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every field and element, as the thing that holds it and its name or number there."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def mutated(fields: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy with one thing dropped, renamed, of another type, or from the future."""
    found = deepcopy(fields)
    if chance.random() < 0.1:
        found["version"] += chance.randint(1, 9)
        return found
    holder, key = chance.choice(list(places(found)))
    how = chance.choice(["drop", "rename", "retype"])
    if how == "retype" or isinstance(holder, list):
        holder[key] = chance.choice(OTHERS)
    elif how == "drop":
        del holder[key]
    else:
        holder[f"{key}_of_old"] = holder.pop(key)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_the_example_of_each_kind_is_one(name: str) -> None:
    kind = KINDS[name]
    fields = example_of(kind)
    Draft202012Validator(json_schema(kind)).validate(fields)
    again = as_builtins(decode(json.dumps(fields), kind.of, name))
    assert again == fields


def test_a_thousand_mutated_documents_are_read_or_refused_in_one_line_with_their_own_code() -> None:
    """What the published schema allows is read; everything else is refused by the error of its kind."""
    chance, refused = random.Random(1), 0
    every = {name: (kind, example_of(kind), Draft202012Validator(json_schema(kind))) for name, kind in KINDS.items()}
    while refused < MUTATIONS:
        kind, fields, validator = every[chance.choice(list(every))]
        changed = mutated(fields, chance)
        if validator.is_valid(changed):
            decode(json.dumps(changed), kind.of, "it")
            continue
        refused += 1
        with pytest.raises(TurbotoolError) as caught:
            decode(json.dumps(changed), kind.of, "it")
        assert type(caught.value) is kind.error
        assert caught.value.message.startswith("it is ")
        assert "\n" not in caught.value.message
