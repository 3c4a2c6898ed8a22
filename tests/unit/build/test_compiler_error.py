from __future__ import annotations

import pytest

from turbotool.build.compiler_error import CompilerError, advice, first_error, no_space

GCC = """[3/9] Building CXX object src/a.o
FAILED: src/a.o
In file included from /t/src/a.cpp:1:
/t/src/a.h: In function 'int f()':
/t/src/a.h:12:8: warning: unused
/t/src/a.h:13:5: error: 'x' was not declared in this scope
   13 |     x
/t/src/a.h:99:5: error: later
"""
CASES = {
    "gcc": (GCC, CompilerError("/t/src/a.h", 13, "'x' was not declared in this scope")),
    "clang, path with a space": (
        "/my dir (2)/a.c:3:1: fatal error: 'b.h' file not found\n",
        CompilerError("/my dir (2)/a.c", 3, "'b.h' file not found"),
    ),
    "clang on Windows": (r"C:\t\a.cpp:3:1: error: no" + "\n", CompilerError(r"C:\t\a.cpp", 3, "no")),
    "nvcc": (
        '/t/fattn.cu(42): error: identifier "y" is undefined\n\n1 error detected\n',
        CompilerError("/t/fattn.cu", 42, 'identifier "y" is undefined'),
    ),
    "nvcc, numbered": ("/t/a.cu(7): error #20-D: what\n", CompilerError("/t/a.cu", 7, "what")),
    "msvc": (
        "C:\\t\\a.cpp(9,3): error C2065: 'x': undeclared identifier\n",
        CompilerError(r"C:\t\a.cpp", 9, "'x': undeclared identifier"),
    ),
    "msvc linker": (
        "a.obj : error LNK2019: unresolved external symbol f\n",
        CompilerError("a.obj", None, "LNK2019: unresolved external symbol f"),
    ),
    "GNU ld": (
        "/usr/bin/ld: a.o: in function `main':\na.cpp:(.text+0x5): undefined reference to `f()'\n"
        "collect2: error: ld returned 1 exit status\n",
        CompilerError("a.cpp", None, "undefined reference to `f()'"),
    ),
    "GNU ld, one line": (
        "/usr/bin/ld: lib/x.so: undefined reference to `f'\n",
        CompilerError("lib/x.so", None, "undefined reference to `f'"),
    ),
    "missing library": (
        "/usr/bin/ld: cannot find -lomp: No such file\n",
        CompilerError(None, None, "cannot find -lomp: No such file"),
    ),
    "Apple ld": (
        'Undefined symbols for architecture arm64:\n  "_f", referenced from:\n',
        CompilerError(None, None, 'Undefined symbols for architecture arm64: "_f", referenced from:'),
    ),
    "cmake": (
        "-- x\nCMake Error at ggml/CMakeLists.txt:7 (message):\n  Could not find\n  glslc\n\n\n-- incomplete\n",
        CompilerError("ggml/CMakeLists.txt", 7, "Could not find glslc"),
    ),
    "cmake, blank line first": (
        "CMake Error at CMakeLists.txt:1 (project):\n\n  No compiler\n",
        CompilerError("CMakeLists.txt", 1, "No compiler"),
    ),
    "cmake, no file": ("CMake Error: could not load cache\n", CompilerError(None, None, "could not load cache")),
    "ninja": ("ninja: error: unknown target 'x'\n", CompilerError(None, None, "unknown target 'x'")),
    "killed": (
        "c++: fatal error: Killed signal terminated program cc1plus\n",
        CompilerError(None, None, "Killed signal terminated program cc1plus"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_first_error_of(name: str) -> None:
    output, expected = CASES[name]
    assert first_error(output) == expected


@pytest.mark.parametrize("output", ["", "all good\n", "a.cpp:3:1: warning: error: prone\n", "-- Found error.h\n"])
def test_no_error_where_there_is_none(output: str) -> None:
    assert first_error(output) is None


def test_very_long_message_is_cut() -> None:
    error = first_error("a.cpp:1:1: error: " + "x" * 100_000)
    assert error is not None
    assert len(error.message) == 400


def test_hostile_output_takes_bounded_time() -> None:
    assert first_error(("a" * 200 + ":" + " " * 200 + "\n") * 2000) is None


@pytest.mark.parametrize(
    "line",
    [
        "as: a.o: No space left on device",
        "cc1: error: closing: Disk quota exceeded",
        "There is not enough space on the disk.",
    ],
)
def test_full_disk_is_recognised(line: str) -> None:
    assert no_space(f"[1/2] x\n{line}\nninja: stopped") == line
    assert no_space("a.cpp:1:1: error: no space for you") is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Killed signal terminated program cc1plus", "--jobs 1"),
        ("x.h: No such file or directory", "turbotool doctor"),
        ("undefined reference to `f'", "CMakeLists.txt"),
        ("'x' was not declared", "fix a.cpp"),
    ],
)
def test_advice_fits_the_error(message: str, expected: str) -> None:
    assert expected in advice(CompilerError("a.cpp", 1, message), "/log")
