"""A tiny project shaped like llama.cpp for the real CMake and compiler: a shared library, the targets' names."""

from __future__ import annotations

import os
from pathlib import Path

from fake_tools import Site

from turbotool.build.backends import BACKENDS
from turbotool.build.request import BuildRequest
from turbotool.build.targets import TARGETS
from turbotool.layout import Layout

UNITS = 6
CMAKELISTS = f"""
cmake_minimum_required(VERSION 3.18)
project(tiny C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
add_library(common STATIC {" ".join(f"unit{n}.cpp" for n in range(UNITS))})
set_target_properties(common PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_compile_definitions(common PUBLIC COMMIT="${{LLAMA_BUILD_COMMIT}}")
add_library(ggml SHARED ggml.c)
set_target_properties(ggml PROPERTIES VERSION 0.1.2 SOVERSION 0)
foreach(name {" ".join(TARGETS)})
    add_executable(${{name}} main.cpp)
    target_link_libraries(${{name}} PRIVATE common ggml)
endforeach()
"""
FILES = {
    "CMakeLists.txt": CMAKELISTS,
    "ggml.c": "int ggml(void) { return 42; }\n",
    "main.cpp": '#include <cstdio>\nextern "C" int ggml();\nint unit0();\n'
    'int main() { std::printf("%s %d\\n", COMMIT, ggml() + unit0()); }\n',
    # A header that takes long enough for a kill to hit the compiler.
    **{f"unit{n}.cpp": f"#include <functional>\nint unit{n}() {{ return {n}; }}\n" for n in range(UNITS)},
}


def real_site(folder: Path, **variables: str) -> Site:
    layout = Layout(folder / "root", folder / "work", folder / "cache")
    env = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    # No compiler cache: a kill shall hit a compiler.
    return Site(layout, {**env, "CCACHE_DISABLE": "1", **variables}, BuildRequest(BACKENDS["cpu"]), private=True)
