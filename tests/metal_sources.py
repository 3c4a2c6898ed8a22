"""Metal shader sources as C++: what the build embeds, with attributes made into what the shim in metal/ understands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SHIM = Path(__file__).parent / "metal"
# The kinds that kernels for a turbo type are in, and what attention over one needs besides.
KINDS = ("turbo", "fa_vec_turbo", "quantize", "mul_mm", "fa_aux", "fa_f16")
F16_ATTENTION = r"kernel_flash_attn_ext_f16_dk(64|128|192|256|576)_.*"
WANTED = re.compile(rf".*turbo[234]?(_.*)?|{F16_ATTENTION}|kernel_flash_attn_ext_kv_.*")

INSTANCE = re.compile(r'template\s*\[\[host_name\("(?P<name>\w+)"\s*\)\]\]\s*kernel\s+\w+\s+(?P<function>[^;]+);')
MACRO = re.compile(r"^#define (?P<name>TURBO_\w+_INSTANCES)(?P<body>( \\\n.*)+?(?<!\\)\n)", re.MULTILINE)
PLAIN = re.compile(r"^kernel void (?P<name>kernel_flash_attn_ext_(pad|blk|vec_reduce|vec_idx))\(", re.MULTILINE)
CONSTANT = re.compile(
    r"^constant\s+(?P<type>\w+)\s+(?P<name>FC_\w+)\s*\[\[function_constant\((?P<index>[^)]*)\)\]\];", re.MULTILINE
)
HALF = re.compile(r"(?<![\w.])(?P<digits>\d+\.\d*)h\b")
PARAMETER = re.compile(r"(?P<type>\w+)\s+(?P<name>\w+)\s*\[\[(?P<attribute>\w+)\]\]")
THREADGROUP = re.compile(r"threadgroup\s+(?P<type>\w+)\s*\*\s*(?P<name>\w+)\s*\[\[threadgroup\(0\)\]\]")
CONTRACT = re.compile(r"^#pragma METAL fp contract\(off\)$", re.MULTILINE)
SAFE = re.compile(r"^#pragma METAL fp math_mode\(safe\)$", re.MULTILINE)


LOCKSTEP = "// these are needed for reducing the results from the simdgroups (reuse the ss buffer)"


def expand(text: str) -> str:
    """The text with the instances that a macro stands for in its place."""
    bodies = {match["name"]: match["body"].replace("\\\n", "\n") for match in MACRO.finditer(text)}
    return re.sub(r"^TURBO_\w+_INSTANCES$", lambda use: bodies[use[0]], MACRO.sub("", text), flags=re.MULTILINE)


def cpp(text: str) -> str:
    """An embedded library as a translation unit of C++ that registers the kernels that are wanted."""
    names: list[tuple[str, str]] = []

    def instance(match: re.Match[str]) -> str:
        if WANTED.fullmatch(match["name"]):
            names.append((match["name"], match["function"]))
        return ""

    text = expand(text)
    constants = [(match["index"], match["name"]) for match in CONSTANT.finditer(text)]
    plain = [match["name"] for match in PLAIN.finditer(text)]
    text = INSTANCE.sub(instance, text)
    text = CONSTANT.sub(r"\g<type> \g<name>;", text)
    text = THREADGROUP.sub(r"msl_threadgroup_memory<\g<type> *> \g<name>", text)
    text = PARAMETER.sub(r"msl_\g<attribute><\g<type>> \g<name>", text)
    # Without a mask its sizes are 0: a GPU divides by them without a trap, and does not use the result.
    text = re.sub(r"%args\.(ne3[123])\b", r"%max(args.\1, 1)", text)
    # Here upstream relies on lockstep: the first lane overwrites what the others may not have read.
    text = text.replace(LOCKSTEP, f"simdgroup_barrier(mem_flags::mem_threadgroup); {LOCKSTEP}")
    text = HALF.sub(r"half(\g<digits>f)", text)
    text = re.sub(r"\bhalf +(\w+) += ([^;{]+?),? *(?=;)", r"half \1(\2)", text)
    text = re.sub(r"^\s*#(include <|undef FA_).*$", "", text, flags=re.MULTILINE)
    text = CONTRACT.sub("_Pragma(\"clang fp contract(off)\")", SAFE.sub("_Pragma(\"clang fp reassociate(off)\")", text))
    lines = ['#include "metal_stdlib"', "namespace {", text]
    lines += [f"const bool c{i} = msl_register_constant({index}, {name});" for i, (index, name) in enumerate(constants)]
    lines += [f'const bool k{i} = msl_register("{name}", {f});' for i, (name, f) in enumerate([*names, *zip(plain, plain)])]
    return "\n".join([*lines, "}", ""])


def write(embedded: Path, target: Path, kinds: Iterable[str] = KINDS) -> list[Path]:
    """The C++ of `kinds`, from the files that the build embeds."""
    written = []
    for kind in kinds:
        path = target / f"metal-{kind}.cpp"
        path.write_text(cpp((embedded / f"ggml-metal-embed-{kind}.metal").read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written
