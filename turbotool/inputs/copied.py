"""A copy of a model with other metadata or tensors, for what the model itself cannot show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def unchanged(_: str, data: Any) -> Any:
    return data


def write_copy(
    model: Path,
    copy: Path,
    *,
    arch: str,
    keys: Mapping[str, object] | None = None,
    tensors: Mapping[str, Any] | None = None,
    change: Callable[[str, Any], Any] = unchanged,
) -> Path:
    """Write `model` as `copy`, which calls itself `arch`.

    `keys` and `tensors` are added or take the place of the model's own; names of keys that begin with a dot are of the
    architecture. `change` is given the name and the array of each tensor of the model, whose rows are as they are
    stored, and returns what is written.
    """
    import gguf

    read = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(copy, arch)
    source = read.fields["general.architecture"].contents()
    added = {f"{arch}{name}" if name.startswith(".") else name: value for name, value in (keys or {}).items()}
    for name, field in read.fields.items():
        own = f"{arch}{name[len(source) :]}" if name.startswith(f"{source}.") else name
        if not name.startswith("GGUF.") and name != "general.architecture" and own not in added:
            items = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(own, field.contents(), field.types[0], sub_type=items)
    for name, value in added.items():
        _add(writer, name, value)
    for tensor in read.tensors:
        if tensor.name not in (tensors or {}):
            writer.add_tensor(tensor.name, change(tensor.name, tensor.data), raw_dtype=tensor.tensor_type)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return copy


def _add(writer: Any, name: str, value: object) -> None:
    """By the type of the value: of GGUF's integers and floats those of 32 bits."""
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(name, value)
