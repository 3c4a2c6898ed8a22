"""What an environment receives: how it finds the libraries, what it refuses, and what it gives the bindings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_bindings import (
    BINDINGS,
    FUNCTIONS,
    OTHER_TREE,
    STRUCTS,
    TREE,
    VERSION,
    make_build,
    make_packages,
    python_build,
)

from turbotool.bindings.wiring import FunctionFields, PythonBuild

PINNED = "llama-cpp-python==0.9.9"
UNREAD = "import sys; sys.path.insert(0, {!r})"  # as PYTHONPATH does: no .pth file is read
ADDED = (("type_k", "int32"), ("moe", "int64"), ("samplers", "pointer"), ("flag", "bool"), ("more", "int32"))


@dataclass
class Python:
    """A Python whose packages are those in a folder, as an environment has them."""

    packages: Path
    bin_dir: Path

    start: str = "import site; site.addsitedir({!r})"  # as an environment does, which reads .pth files

    def run(self, code: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        start = f"{self.start.format(str(self.packages))}\n"
        command = [sys.executable, "-I", "-S", "-c", start + code]
        return subprocess.run(command, env=dict(env or {}), capture_output=True, text=True, check=False, timeout=60)

    def tells(self, expression: str, env: Mapping[str, str] | None = None) -> Any:
        """The value of an expression, in which llama_cpp and turbotool_llama are imported."""
        code = f"import json, ctypes, llama_cpp, turbotool_llama\nprint(json.dumps({expression}))"
        done = self.run(code, env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refuses(self, env: Mapping[str, str] | None = None) -> str:
        """The line with which `import llama_cpp` ends."""
        done = self.run("import llama_cpp", env)
        assert done.returncode == 1
        error = done.stderr.splitlines()[-1]
        assert error.startswith("ImportError: ")
        return error


def python(folder: Path, build: PythonBuild | None = None, bindings: str = BINDINGS) -> Python:
    bin_dir = make_build(folder / "build")
    build = replace(build, bin_dir=str(bin_dir)) if build else python_build(bin_dir)
    return Python(make_packages(folder / "packages", build, bindings), bin_dir)


def from_wheel(folder: Path, build: PythonBuild | None = None, start: str = Python.start) -> Python:
    """A Python that a wheel was installed for: the libraries lie in the package."""
    build = replace(build or python_build(Path()), bin_dir="lib", bindings=PINNED)
    packages = make_packages(folder / "packages", build)
    (packages / "turbotool_llama" / "lib").mkdir()
    return Python(packages, packages / "turbotool_llama" / "lib", start)


def with_context(fields: tuple[tuple[str, str], ...]) -> PythonBuild:
    """A build whose llama_context_params has these fields."""
    return replace(python_build(Path()), structs={**STRUCTS, "llama_context_params": fields})


def with_function(name: str, result: str, *takes: str) -> PythonBuild:
    return replace(python_build(Path()), functions={**FUNCTIONS, name: FunctionFields(result, takes)})


def test_the_bindings_find_the_libraries_of_the_build(tmp_path: Path) -> None:
    there = python(tmp_path)
    assert there.tells("llama_cpp.llama_cpp.libraries") == str(there.bin_dir)


def test_nothing_is_read_before_the_bindings_are_imported(tmp_path: Path) -> None:
    there = python(tmp_path)
    (there.packages / "turbotool_llama" / "build.json").unlink()
    done = there.run("import sys; print([name for name in ('ctypes', 'json', 'pathlib') if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_bindings_that_fit_stay_as_they_are(tmp_path: Path) -> None:
    assert python(tmp_path).tells("turbotool_llama.report()") == {
        "version": VERSION,
        "calibration": "auto",
        "structs": 3,
        "functions": 2,
        "constants": 1,
        "added": {},
        "unchecked": ["llama_union"],
    }


def test_a_struct_is_given_the_fields_that_it_lacks(tmp_path: Path) -> None:
    there = python(tmp_path, with_context(ADDED))
    told = "[[name for name, _ in llama_cpp.llama_context_params._fields_], turbotool_llama.report()['added']]"
    fields, added = there.tells(told)
    assert fields == [name for name, _ in ADDED]
    assert added == {"llama_context_params": ["moe", "more"]}


def test_functions_take_the_struct_that_has_all_fields(tmp_path: Path) -> None:
    there = python(tmp_path, with_context(ADDED))
    taken = "[llama_cpp.llama_init.argtypes[1], llama_cpp.llama_cpp._llama_old.argtypes[0]._type_,"
    taken += " llama_cpp.llama_context_params_p._type_, type(llama_cpp.llama_context_default_params())]"
    assert there.tells(f"[one is llama_cpp.llama_context_params for one in {taken}]") == [True] * 4


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (with_context(ADDED[1:]), "llama_context_params.type_k is int32 there, unknown in llama.h"),
        (
            with_context((("type_k", "int64"), *ADDED[1:])),
            "llama_context_params.type_k is int32 there, int64 in llama.h",
        ),
        (
            with_context((*ADDED, ("inner", "struct llama_inner"))),
            "llama_context_params.inner is unknown there, struct llama_inner in llama.h",
        ),
        (
            with_function("llama_old", "void", "pointer", "pointer"),
            "llama_old is void(pointer, float32) there, void(pointer, pointer) in llama.h",
        ),
        (
            replace(python_build(Path()), functions={"llama_old": FUNCTIONS["llama_old"]}),
            "llama_init is pointer(pointer, struct llama_context_params) there, unknown in llama.h",
        ),
    ],
)
def test_another_llama_h_is_refused_in_one_line(tmp_path: Path, build: PythonBuild, told: str) -> None:
    error = python(tmp_path, build).refuses()
    assert told in error
    assert "type `turbotool python-env " in error


@pytest.mark.parametrize(("field", "value"), [("samplers", "0x10000"), ("flag", "2")])
def test_defaults_that_hold_what_they_cannot_are_refused(tmp_path: Path, field: str, value: str) -> None:
    # what a library of another layout than the one that was read would write there
    made = f"params = llama_context_params()\n    offset = llama_context_params.{field}.offset\n"
    made += (
        f"    ctypes.memmove(ctypes.byref(params, offset), ctypes.byref(ctypes.c_int32({value})), 4)\n    return params"
    )
    bindings = BINDINGS.replace("return llama_context_params()", made)
    error = python(tmp_path, bindings=bindings).refuses()
    assert f"llama_context_default_params() has {field} = {int(value, 0):#x}" in error


def test_a_constant_of_another_value_is_refused(tmp_path: Path) -> None:
    bindings = BINDINGS.replace("LLAMA_FLASH_ON, LLAMA_MAGIC = 1,", "LLAMA_FLASH_ON, LLAMA_MAGIC = 2,")
    assert "LLAMA_FLASH_ON is 2 there, 1 in llama.h" in python(tmp_path, bindings=bindings).refuses()


def test_a_function_that_the_library_lacks_is_told_in_one_line(tmp_path: Path) -> None:
    bindings = f"{BINDINGS}import ctypes\nctypes.CDLL(None).llama_no_such_function\n"
    assert "llama_no_such_function" in python(tmp_path, bindings=bindings).refuses()


def test_libraries_of_another_tree_are_refused(tmp_path: Path) -> None:
    there = python(tmp_path)
    (there.bin_dir.parent / "build.json").write_text(json.dumps({"tree": OTHER_TREE}))
    error = there.refuses()
    assert OTHER_TREE in error
    assert TREE in error


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_libraries_of_an_unknown_tree_are_refused(tmp_path: Path, text: str | None) -> None:
    there = python(tmp_path)
    record = there.bin_dir.parent / "build.json"
    record.unlink()
    if text is not None:
        record.write_text(text)
    assert "unknown tree" in there.refuses()


def test_libraries_that_are_gone_are_missed(tmp_path: Path) -> None:
    there = python(tmp_path)
    there.bin_dir.rename(tmp_path / "elsewhere")
    assert f"{there.bin_dir} has no libraries" in there.refuses()


def test_other_libraries_of_the_same_tree_are_taken_if_they_are_named(tmp_path: Path) -> None:
    there, other = python(tmp_path), make_build(tmp_path / "other")
    assert there.tells("llama_cpp.llama_cpp.libraries", {"LLAMA_CPP_LIB_PATH": str(other)}) == str(other)
    stranger = make_build(tmp_path / "stranger", OTHER_TREE)
    assert OTHER_TREE in there.refuses({"LLAMA_CPP_LIB_PATH": str(stranger)})


def test_backends_that_are_libraries_of_their_own_are_loaded_from_the_folder(tmp_path: Path) -> None:
    there = python(tmp_path / "package", bindings=BINDINGS.replace('["CPU"]', "[]"))
    assert there.tells("llama_cpp.llama_cpp._lib.backends") == [str(there.bin_dir)]
    assert python(tmp_path / "build").tells("llama_cpp.llama_cpp._lib.backends") == ["CPU"]


def test_the_bindings_find_the_libraries_of_a_wheel(tmp_path: Path) -> None:
    there = from_wheel(tmp_path)
    assert there.tells("llama_cpp.llama_cpp.libraries") == str(there.bin_dir)


def test_a_wheel_names_the_bindings_that_it_is_for(tmp_path: Path) -> None:
    error = from_wheel(tmp_path, with_context(ADDED[1:])).refuses()
    assert "llama_context_params.type_k is int32 there, unknown in llama.h" in error
    assert error.endswith(f"type `{sys.executable} -m pip install {PINNED}`")


def test_a_wheel_does_not_take_other_libraries(tmp_path: Path) -> None:
    stranger = make_build(tmp_path / "stranger", OTHER_TREE)
    error = from_wheel(tmp_path).refuses({"LLAMA_CPP_LIB_PATH": str(stranger)})
    assert OTHER_TREE in error
    assert error.endswith("unset LLAMA_CPP_LIB_PATH, or install turbotool-llama again")


def test_imported_first_the_package_does_without_a_pth_file(tmp_path: Path) -> None:
    there = from_wheel(tmp_path, start=UNREAD)
    done = there.run("import turbotool_llama, llama_cpp; print(llama_cpp.llama_cpp.libraries)")
    assert done.stdout.strip() == str(there.bin_dir), done.stderr


def test_bindings_that_were_imported_before_are_refused(tmp_path: Path) -> None:
    there = from_wheel(tmp_path, start=UNREAD)
    done = there.run("import llama_cpp, turbotool_llama", {"LLAMA_CPP_LIB_PATH": "elsewhere"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: llama_cpp was imported before turbotool_llama")


def test_cache_types_have_names_numbers_and_keywords(tmp_path: Path) -> None:
    there = python(tmp_path)
    assert there.tells("[turbotool_llama.TURBO4, turbotool_llama.number('q8_0')]") == [102, 8]
    assert there.tells("turbotool_llama.kv('turbo4')") == {"type_k": 102, "type_v": 102, "flash_attn": True}
    assert there.tells("turbotool_llama.kv('q8_0/turbo4')") == {"type_k": 8, "type_v": 102, "flash_attn": True}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("turbotool_llama.kv('turbo9')", "ValueError: unknown cache type 'turbo9': use one of q8_0, turbo4"),
        ("turbotool_llama.TURBO9", "AttributeError: module 'turbotool_llama' has no attribute 'TURBO9'"),
        ("turbotool_llama.calibration('')", "ValueError: a calibration is auto, off, or the path of a file"),
    ],
)
def test_what_there_is_not_is_told(tmp_path: Path, code: str, error: str) -> None:
    done = python(tmp_path).run(f"import turbotool_llama\n{code}")
    assert done.stderr.splitlines()[-1] == error
