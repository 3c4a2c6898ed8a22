"""A llama_cpp that has structs and functions as the real one has, without a library behind them."""

from __future__ import annotations

import json
import venv
from collections.abc import Iterable
from pathlib import Path

from turbotool.bindings import wiring
from turbotool.bindings.wiring import FunctionFields, PythonBuild
from turbotool.kv.cachetype import BLOCKS

TREE, OTHER_TREE = "a" * 40, "b" * 40
VERSION = "0.9.9"
BINDINGS = """\
import ctypes, os
LLAMA_FLASH_ON, LLAMA_MAGIC = 1, 0x6767
class llama_model_params(ctypes.Structure):
    _fields_ = [("devices", ctypes.c_void_p), ("vocab_only", ctypes.c_bool)]
class llama_context_params(ctypes.Structure):
    _fields_ = [("type_k", ctypes.c_int), ("samplers", ctypes.c_void_p), ("flag", ctypes.c_bool)]
class llama_union(ctypes.Structure):
    _fields_ = [("key", ctypes.c_char * 128)]
llama_context_params_p = ctypes.POINTER(llama_context_params)
def function(result, *takes):
    made = ctypes.CFUNCTYPE(None)(lambda: None)
    made.restype, made.argtypes = result, takes
    return made
llama_init = function(ctypes.c_void_p, ctypes.c_void_p, llama_context_params)
_llama_old = function(None, llama_context_params_p, ctypes.c_float)
def llama_model_default_params():
    return llama_model_params()
def llama_context_default_params():
    return llama_context_params()
class _lib:
    told, backends = "off", ["CPU"]
    def ggml_backend_reg_count():
        return len(_lib.backends)
    def ggml_backend_load_all_from_path(folder):
        _lib.backends.append(folder.decode())
    def llama_kv_calibration_set_default(how):
        _lib.told = how.decode()
    def llama_kv_calibration_set(how):
        _lib.told = how.decode()
        return bool(how)
    def llama_kv_calibration_get():
        return _lib.told.encode()
libraries = os.environ["LLAMA_CPP_LIB_PATH"]
"""
CONSTANTS = {"LLAMA_FLASH_ON": 1, "LLAMA_FLASH_NEVER": 7}
STRUCTS = {
    "llama_model_params": (("devices", "pointer"), ("vocab_only", "bool")),
    "llama_context_params": (("type_k", "int32"), ("samplers", "pointer"), ("flag", "bool")),
}
FUNCTIONS = {
    "llama_init": FunctionFields("pointer", ("pointer", "struct llama_context_params")),
    "llama_old": FunctionFields("void", ("pointer", "float32")),
}


def python_build(bin_dir: Path) -> PythonBuild:
    """A build whose llama.h is that of the fake bindings."""
    return PythonBuild(str(bin_dir), TREE, "", {"q8_0": 8, "turbo4": 102}, STRUCTS, FUNCTIONS, CONSTANTS)


def make_build(folder: Path, tree: str = TREE) -> Path:
    """A folder of programs with a build.json beside it that names a tree."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "libllama.so").touch()
    (folder / "build.json").write_text(json.dumps({"tree": tree}))
    return folder / "bin"


def make_packages(folder: Path, build: PythonBuild, bindings: str = BINDINGS) -> Path:
    """A folder of packages as an environment has it, with the fake bindings."""
    add_bindings(folder, bindings)
    wiring.install(build, folder)
    return folder


HEADERS = {
    "include/llama.h": """
        enum llama_flash { LLAMA_FLASH_OFF, LLAMA_FLASH_ON };
        struct llama_model_params { void * devices; bool vocab_only; };
        struct llama_context_params { enum ggml_type type_k; size_t moe; void * samplers; bool flag; };
        LLAMA_API void * llama_init(const char * path, struct llama_context_params params);
        LLAMA_API void llama_old(struct llama_context_params * params, float scale);
    """,
    "ggml/include/ggml.h": "enum ggml_type {{ {} }};",
    "ggml/include/ggml-backend.h": "",
    "ggml/include/ggml-cpu.h": "",
    "ggml/include/ggml-opt.h": "",
}


def make_sources(folder: Path, types: Iterable[str] = BLOCKS) -> Path:
    """The headers of a tree: those of the fake bindings, with one field that they do not know."""
    values = ", ".join(f"GGML_TYPE_{name.upper()} = {number}" for number, name in enumerate(types, 10))
    for name, text in HEADERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.format(values) if "{{" in text else text)
    return folder


def make_environment(folder: Path, bindings: str = BINDINGS, version: str = VERSION) -> Path:
    """A real virtual environment with the fake bindings, as pip would have installed them."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    add_bindings(packages, bindings, version)
    return folder


def add_bindings(packages: Path, bindings: str = BINDINGS, version: str = VERSION) -> None:
    (packages / "llama_cpp").mkdir(parents=True)
    (packages / "llama_cpp" / "llama_cpp.py").write_text(bindings)
    (packages / "llama_cpp" / "__init__.py").write_text(f"from .llama_cpp import *\n__version__ = {version!r}\n")
    known = packages / f"llama_cpp_python-{version}.dist-info"
    known.mkdir()
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {version}\n")
