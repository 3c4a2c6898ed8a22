"""Metal shader sources: their kernels and function constants by name, and themselves as C++ for native/metal/."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SHIM = Path(__file__).parents[1] / "native/metal"
# Libraries that have kernels for a turbo type, and what attention over one needs besides.
KINDS = ("turbo", "fa_vec_turbo", "quantize", "mul_mm", "fa_aux", "fa_f16")
WANTED = re.compile(
    r".*turbo[234]?(_.*)?|kernel_flash_attn_ext_kv_.*|kernel_flash_attn_ext_f16_dk(64|128|192|256|320|512|576)_.*"
)

INSTANCE = re.compile(r'template\s*\[\[host_name\("(?P<name>\w+)"\s*\)\]\]\s*kernel\s+\w+\s+(?P<function>[^;]+);')
MACRO = re.compile(r"^#define (?P<name>TURBO_\w+_INSTANCES)(?P<body>( \\\n.*)+?(?<!\\)\n)", re.MULTILINE)
# what needs the tensor API, which the shim has not; a part with an alternative is left to the preprocessor
TENSOR = re.compile(r"^#ifdef GGML_METAL_HAS_TENSOR\n(?:(?!#else).*\n)*?#endif // GGML_METAL_HAS_TENSOR$", re.MULTILINE)
PLAIN = re.compile(r"^kernel void (?P<name>kernel_flash_attn_ext_(pad|blk|vec_reduce|vec_idx))\(", re.MULTILINE)
CONSTANT = re.compile(
    r"^constant\s+(?P<type>\w+)\s+(?P<name>FC_\w+)\s*\[\[function_constant\((?P<index>[^)]*)\)\]\];", re.MULTILINE
)
PARAMETER = re.compile(r"(?P<type>\w+)\s+(?P<name>\w+)\s*\[\[(?P<attribute>\w+)\]\]")
THREADGROUP = re.compile(r"threadgroup\s+(?P<type>\w+)\s*\*\s*(?P<name>\w+)\s*\[\[threadgroup\(0\)\]\]")

SUBSTITUTES = (
    (THREADGROUP, r"msl_threadgroup_memory<\g<type> *> \g<name>"),
    (PARAMETER, r"msl_\g<attribute><\g<type>> \g<name>"),
    (CONSTANT, r"\g<type> \g<name>;"),
    (re.compile(r"(?<![\w.])(\d+\.\d*)h\b"), r"half(\1f)"),
    (re.compile(r"\bhalf +(\w+) += ([^;{]+?),? *(?=;)"), r"half \1(\2)"),
    (re.compile(r"^\s*#(include <|undef FA_).*$", re.MULTILINE), ""),
    (re.compile(r"^#pragma METAL fp contract\(off\)$", re.MULTILINE), '_Pragma("clang fp contract(off)")'),
    (re.compile(r"^#pragma METAL fp math_mode\(safe\)$", re.MULTILINE), '_Pragma("clang fp reassociate(off)")'),
    # A kernel's own array that its threads share; they are fibers of one thread.
    (re.compile(r"^( +)threadgroup (\w+ \w+\[\d+\];)$", re.MULTILINE), r"\1static \2"),
    # Without a mask its sizes are 0: a GPU divides by them without a trap, and does not use the result.
    (re.compile(r"%args\.(ne3[123])\b"), r"%max(args.\1, 1)"),
    # Here upstream relies on lockstep: the first lane overwrites what the others may not have read.
    (
        re.compile(
            r"(?=// these are needed for reducing the results from the simdgroups)"
            r"|(?=if \(tiisg == 0\) \{\n +ss\[2\*qq \+ 0\] = Sx;)"
        ),
        "simdgroup_barrier(mem_flags::mem_threadgroup); ",
    ),
)


def expand(text: str) -> str:
    """An embedded library with the instances that a macro stands for in its place."""
    bodies = {match["name"]: match["body"].replace("\\\n", "\n") for match in MACRO.finditer(text)}
    return re.sub(r"^TURBO_\w+_INSTANCES$", lambda use: bodies[use[0]], MACRO.sub("", text), flags=re.MULTILINE)


def kernels(text: str) -> list[str]:
    """Names by which the host finds the instances of templates in an embedded library, in order."""
    return [match["name"] for match in INSTANCE.finditer(expand(text))]


def constants(text: str) -> dict[str, str]:
    """The type of each function constant of a library by its index, as it is written."""
    return {match["index"]: match["type"] for match in CONSTANT.finditer(text)}


def cpp(text: str) -> str:
    """An embedded library as a translation unit of C++ that registers the kernels that are wanted."""
    text = TENSOR.sub("", expand(text))
    names = [(match["name"], match["function"]) for match in INSTANCE.finditer(text) if WANTED.fullmatch(match["name"])]
    names += [(match["name"], match["name"]) for match in PLAIN.finditer(text)]
    lines = [f'const bool k{i} = msl_register("{name}", {function});' for i, (name, function) in enumerate(names)]
    lines += [
        f"const bool c{i} = msl_register_constant({match['index']}, {match['name']});"
        for i, match in enumerate(CONSTANT.finditer(text))
    ]
    text = INSTANCE.sub("", text)
    for pattern, by in SUBSTITUTES:
        text = pattern.sub(by, text)
    return "\n".join(['#include "metal_stdlib"', "namespace {", text, *lines, "}", ""])


def write(embedded: Path, target: Path, kinds: Iterable[str] = KINDS) -> None:
    """Write the C++ of `kinds`, made from the files that the build embeds."""
    for kind in kinds:
        text = (embedded / f"ggml-metal-embed-{kind}.metal").read_text(encoding="utf-8")
        (target / f"metal-{kind}.cpp").write_text(cpp(text), encoding="utf-8")
