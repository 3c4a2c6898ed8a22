"""What the host code of ggml-metal asks of the shaders for a turbo type, read from its sources."""

from __future__ import annotations

import re
from itertools import product

from turbotool.kv.cachetype import TURBO

FLOATS = ("f32", "f16")
# what the format of each function that names a kernel is filled with, over all that ggml_metal_turbo_supports_op admits
FILLS: dict[str, list[tuple[str, ...]]] = {
    "get_pipeline_cpy": [*product(["f32"], TURBO), *product(TURBO, FLOATS)],
    "get_pipeline_get_rows": [(name,) for name in TURBO],
    "get_pipeline_set_rows": [*product(["f32"], ["i32", "i64"], TURBO)],
    "get_pipeline_mul_mm": [*product(TURBO, FLOATS)],
    "get_pipeline_mul_mv": [*product(TURBO, ["f32"], [""])],
    "get_pipeline_flash_attn_ext_kv_f16": [(name,) for name in TURBO],
}
HEAD_SIZES = re.compile(r"head_sizes\[\]\[2\] = \{(?P<rows>.*?)\n    \};", re.DOTALL)
SET = re.compile(r"^\s*ggml_metal_cv_set_(?P<type>\w+)\s*\(cv, [^;]*?, *(?P<index>FC_\w+ \+ \d+)\);", re.MULTILINE)
SHADER_TYPES = {"int16": ("short",), "int32": ("int32_t", "int"), "bool": ("bool",)}


def format_of(host: str, function: str) -> str:
    """The format with which a function of ggml-metal-device.cpp makes the name of its kernel."""
    found = re.search(rf'\b\w+_{function}\(.*?\n.*?snprintf\(base, 256, "(?P<format>[^"]+)"', host, re.DOTALL)
    assert found, f"{function} makes no name"
    return found["format"]


def asked(host: str, turbo: str) -> set[str]:
    """Kernels that the host code can ask for with a turbo type; `turbo` is ggml-metal-turbo.cpp."""
    names = {format_of(host, function) % fill for function, fills in FILLS.items() for fill in fills}
    rows = HEAD_SIZES.search(turbo)
    assert rows, "no table of head sizes"
    sizes = [(int(k), int(v)) for k, v in re.findall(r"\{ (\d+), +(\d+) +\}", rows["rows"])]
    assert sizes, "an empty table of head sizes"
    vec = format_of(host, "get_pipeline_flash_attn_ext_vec")
    matrix = format_of(host, "get_pipeline_flash_attn_ext")
    for k, v in sizes:
        names |= {vec % ("flash_attn_ext_vec", "turbo", k, v, ""), matrix % ("flash_attn_ext", "f16", k, v)}
    return names


def constants_set(*host: str) -> set[tuple[str, str]]:
    """Index and type of the function constants that the host code sets."""
    return {(match["index"], match["type"]) for text in host for match in SET.finditer(text)}


def faults(host: str, turbo: str, kernels: list[str], constants: dict[str, str]) -> list[str]:
    """What host code and shaders do not agree on: kernels that lack or are there twice, constants of another type."""
    wanted = sorted(asked(host, turbo))
    found = [f"no kernel {name}" for name in wanted if name not in kernels]
    found += [f"{name} is there {kernels.count(name)} times" for name in wanted if kernels.count(name) > 1]
    for index, kind in sorted(constants_set(host, turbo)):
        if constants.get(index) not in SHADER_TYPES[kind]:
            found.append(f"function constant {index} is set as {kind}, and in the shaders it is {constants.get(index)}")
    return found
