"""What an environment or a wheel is told of a build: where libraries are, the numbers of cache types, its llama.h."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.bindings.header import Declarations, read_declarations
from turbotool.errors import SourceError
from turbotool.kv.cachetype import BLOCKS
from turbotool.system.documents import document, encode
from turbotool.system.files import write_file

SELF = Path(__file__)
PACKAGE = "turbotool_llama"
HEADERS = (
    *("include/llama.h", "ggml/include/ggml.h", "ggml/include/ggml-backend.h"),
    *("ggml/include/ggml-cpu.h", "ggml/include/ggml-opt.h"),
)
OWN = "llama_"  # how the names of llama.h begin
START = f"import {PACKAGE}\n"


@dataclass(frozen=True)
class FunctionFields:
    """The kind of what a function returns, and those of what it takes."""

    result: str
    takes: tuple[str, ...]


@document("python-build")
@dataclass(frozen=True)
class PythonBuild:
    """The build that a Python environment is for: its folder of libraries, and the git tree that they are made from.

    In a wheel the folder is one below `turbotool_llama`, and `bindings` what pip must install to have the
    llama-cpp-python that it is for; elsewhere that is ''. `types` are the numbers of cache types. `structs` are the
    fields of each struct of llama.h in order, with what kind of value each holds; `functions` what each takes and
    returns; `constants` the values of enumerators.
    """

    bin_dir: str
    tree: str
    bindings: str
    types: Mapping[str, int]
    structs: Mapping[str, tuple[tuple[str, str], ...]]
    functions: Mapping[str, FunctionFields]
    constants: Mapping[str, int]


def describe(bin_dir: str, tree: str, sources: Path, bindings: str = "") -> PythonBuild:
    """A build whose tree is the one in `sources`. Raises SourceError if its headers are not as they are read."""
    try:
        header = read_declarations((sources / name).read_text(encoding="utf-8") for name in HEADERS)
    except OSError as error:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}", hint="turbotool patch apply") from error
    return PythonBuild(
        bin_dir=bin_dir,
        tree=tree,
        bindings=bindings,
        types=_types(header, sources),
        structs={name: tuple(fields.items()) for name, fields in header.structs.items() if name.startswith(OWN)},
        functions={
            name: FunctionFields(one.result, one.takes)
            for name, one in header.functions.items()
            if name.startswith(OWN)
        },
        constants={name: value for name, value in header.values.items() if name.startswith(OWN.upper())},
    )


def _types(header: Declarations, sources: Path) -> dict[str, int]:
    """The numbers of the cache types as `enum ggml_type` has them."""
    named = {name: header.values.get(f"GGML_TYPE_{name.upper()}") for name in BLOCKS}
    if lacking := [name for name, number in named.items() if number is None]:
        raise SourceError(
            f"{sources / HEADERS[1]} has no number for {', '.join(lacking)}", hint="turbotool patch apply"
        )
    return {name: number for name, number in named.items() if number is not None}


def files(build: PythonBuild) -> dict[str, bytes]:
    """Our package as it lies in a folder of packages, with the file that makes Python import it when it starts."""
    sources = {f"{PACKAGE}/{source.name}": source.read_bytes() for source in (SELF.parent / PACKAGE).glob("*.py")}
    return {**sources, f"{PACKAGE}/build.json": encode(build), f"{PACKAGE}.pth": START.encode()}


def install(build: PythonBuild, packages: Path) -> None:
    """Put our package into a folder of packages. Raises NoSpace."""
    for name, data in files(build).items():
        write_file(packages / name, data)
