"""An environment for people: what is in it, what was compared, and how it is used."""

from __future__ import annotations

from turbotool.bindings.releases import NAME
from turbotool.bindings.run import Wired
from turbotool.system.process import display

USE = """\
from llama_cpp import Llama
from turbotool_llama import kv

llama = Llama("model.gguf", n_ctx=4096, **kv("turbo4"))"""


def text(wired: Wired) -> str:
    """A few lines, and a program to begin with."""
    found, build = wired.environment, wired.build
    program = "\n".join(f"  {line}".rstrip() for line in USE.splitlines())
    lines = [
        f"{found.folder}: Python {found.python_version}, {NAME} {found.bindings}",
        f"libraries: {build.bin_dir} ({wired.backend}, tree {build.tree[:12]})",
        f"compared with llama.h: {_compared(wired)}",
        *(f"  {name} was given {', '.join(fields)}" for name, fields in wired.added.items()),
        *([f"  not compared: {', '.join(wired.unchecked)}"] if wired.unchecked else []),
        f"a quantized K is calibrated: {wired.calibration}",
        "",
        display([found.python]),
        program,
    ]
    return "\n".join(lines)


def _compared(wired: Wired) -> str:
    structs = wired.structs - len(wired.unchecked)
    return f"{structs} structs, {wired.functions} functions, {wired.constants} constants"
