"""The layouts that llama-cpp-python's ctypes assume, compared with the llama.h of the build, and made the same.

ctypes checks nothing: a field that llama.h has and the bindings do not know shifts all that follow it, and the library
then reads other memory. A struct that only has more fields is given them, with the values of the library's defaults.
Whatever else differs is refused.
"""

from __future__ import annotations

import ctypes
import os
from _ctypes import CFuncPtr
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .build import fitting, read_build

POINTERS = (ctypes._Pointer, CFuncPtr, ctypes.c_void_p, ctypes.c_char_p)
NEW: Mapping[str, Any] = {
    "bool": ctypes.c_bool,
    "int8": ctypes.c_int8,
    "int16": ctypes.c_int16,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
    "pointer": ctypes.c_void_p,
}
DEFAULTS = ("llama_model_default_params", "llama_context_default_params")
SHOWN = 3  # differences in an error
Kinds = Mapping[str, str]
_done: list[Fit] = []


@dataclass(frozen=True)
class Fit:
    """How many structs, functions and constants were compared with llama.h, and the fields that structs were given.

    `unchecked` are structs whose layout llama.h tells in a form that is not read.
    """

    structs: int
    functions: int
    constants: int
    added: Mapping[str, tuple[str, ...]]
    unchecked: tuple[str, ...]


def fit(module: ModuleType, folder: Path) -> None:
    """Give the bindings the layouts of the build, with its libraries in `folder`.

    Raises ImportError if that cannot be done.
    """
    build = read_build()
    headers: dict[str, Kinds] = {name: dict(fields) for name, fields in build["structs"].items()}
    ours = structs(module)
    called = {name: [one["result"], one["takes"]] for name, one in build["functions"].items()}
    values = {name: value for name, value in vars(module).items() if type(value) is int and name in build["constants"]}
    refuse([*struct_differences(ours, headers), *function_differences(functions(module), called)])
    refuse(constant_differences(values, build["constants"]))
    changed = {name: fields for name, of in ours.items() if list(of) != list(fields := headers.get(name, of))}
    replace(module, changed)
    refuse(impossible(module))
    load_backends(module, folder)
    module._lib.llama_kv_calibration_set_default(b"auto")
    added = {name: tuple(field for field in fields if field not in ours[name]) for name, fields in changed.items()}
    _done[:] = [Fit(len(ours), len(functions(module)), len(values), added, tuple(sorted(ours.keys() - headers.keys())))]


def done() -> dict[str, Any]:
    """What `fit` found."""
    return asdict(_done[0])


def refuse(found: list[str]) -> None:
    """Raise ImportError with the first of the differences, if there are any."""
    if found:
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        what = "; ".join(found[:SHOWN])
        raise ImportError(f"llama-cpp-python expects another llama.h than that of the build: {what}{more}; {fitting()}")


def structs(module: ModuleType) -> dict[str, dict[str, str]]:
    """The structs of the bindings as fields with their kinds."""
    found = {
        name: of
        for name, of in vars(module).items()
        if isinstance(of, type) and issubclass(of, ctypes.Structure) and name.startswith("llama_")
    }
    return {name: {field[0]: kind(field[1]) for field in of._fields_} for name, of in found.items()}


def functions(module: ModuleType) -> dict[str, list[Any]]:
    """The functions of the bindings by the name in llama.h: the kind of the result, and those of what they take."""
    found = {}
    for name, function in vars(module).items():
        symbol = name.lstrip("_")
        if isinstance(function, CFuncPtr) and symbol.startswith("llama_"):
            found[symbol] = [kind(function.restype), [kind(one) for one in function.argtypes or ()]]
    return found


def kind(of: Any) -> str:
    """What llama.h's reader calls a type."""
    if of is None:
        return "void"
    if issubclass(of, ctypes.Structure):
        return f"struct {of.__name__}"
    if issubclass(of, POINTERS):
        return "pointer"
    if of is ctypes.c_bool:
        return "bool"
    family = "float" if of in (ctypes.c_float, ctypes.c_double) else "int"
    return f"{family}{8 * ctypes.sizeof(of)}" if issubclass(of, ctypes._SimpleCData) else "other"


def struct_differences(ours: Mapping[str, Kinds], headers: Mapping[str, Kinds]) -> list[str]:
    """What the bindings have in a struct that llama.h has not, or otherwise; or that cannot be added to it."""
    found = []
    for name, fields in ours.items():
        there = headers.get(name, fields)
        for field, of in fields.items():
            if of != there.get(field):
                found.append(f"{name}.{field} is {of} there, {there.get(field, 'unknown')} in llama.h")
        new = [field for field in there if field not in fields and there[field] not in NEW]
        found += [f"{name}.{field} is unknown there, {there[field]} in llama.h" for field in new]
    return found


def function_differences(ours: Mapping[str, Any], headers: Mapping[str, Any]) -> list[str]:
    """Functions that are called otherwise than llama.h has them, or that it has not."""
    return [
        f"{name} is {shown(called)} there, {shown(headers[name]) if name in headers else 'unknown'} in llama.h"
        for name, called in ours.items()
        if called != headers.get(name)
    ]


def constant_differences(ours: Mapping[str, int], headers: Mapping[str, int]) -> list[str]:
    """Constants that mean something else to the library."""
    return [
        f"{name} is {value} there, {headers[name]} in llama.h" for name, value in ours.items() if value != headers[name]
    ]


def shown(signature: Any) -> str:
    result, takes = signature
    return f"{result}({', '.join(takes)})"


def replace(module: ModuleType, changed: Mapping[str, Kinds]) -> None:
    """Give these structs the fields of llama.h, in its order, in the module and in every function that takes them."""
    swap: dict[Any, Any] = {}
    for name, fields in changed.items():
        old = getattr(module, name)
        own = {field[0]: field[1] for field in old._fields_}
        layout = [(field, own.get(field, NEW.get(of))) for field, of in fields.items()]
        new = type(
            name, (ctypes.Structure,), {"_fields_": layout, "__doc__": old.__doc__, "__module__": old.__module__}
        )
        swap |= {old: new, ctypes.POINTER(old): ctypes.POINTER(new)}
    for name, value in list(vars(module).items()):
        if isinstance(value, CFuncPtr) and value.argtypes is not None:
            value.argtypes = [swap.get(one, one) for one in value.argtypes]
            value.restype = swap.get(value.restype, value.restype)
        elif isinstance(value, type) and value in swap:
            setattr(module, name, swap[value])


def impossible(module: ModuleType) -> list[str]:
    """Fields of the library's default parameters that hold what they cannot: the layout is not the library's then."""
    return [
        f"{name}() has {field[0]} = {raw:#x}"
        for name in DEFAULTS
        for params in [getattr(module, name)()]
        for field in params._fields_
        if (raw := memory(params, field[0])) > (1 if field[1] is ctypes.c_bool else 0)
        and kind(field[1]) in ("bool", "pointer")
    ]


def memory(params: ctypes.Structure, field: str) -> int:
    """The bytes of a field as a number."""
    place = getattr(type(params), field)
    return int.from_bytes(bytes(params)[place.offset : place.offset + place.size], "little")


def load_backends(module: ModuleType, folder: Path) -> None:
    """Load the backends that are libraries of their own, as in a package: by itself ggml looks beside the program."""
    count, load = module._lib.ggml_backend_reg_count, module._lib.ggml_backend_load_all_from_path
    count.argtypes, count.restype = [], ctypes.c_size_t
    load.argtypes, load.restype = [ctypes.c_char_p], None
    if not count():
        load(os.fsencode(folder))


def set_calibration(module: ModuleType, how: str) -> None:
    """Raises ValueError for an empty word."""
    call = module._lib.llama_kv_calibration_set
    call.argtypes, call.restype = [ctypes.c_char_p], ctypes.c_bool
    if not call(how.encode()):
        raise ValueError("a calibration is auto, off, or the path of a file")


def calibration_now(module: ModuleType) -> str:
    call = module._lib.llama_kv_calibration_get
    call.argtypes, call.restype = [], ctypes.c_char_p
    return str(call().decode())
