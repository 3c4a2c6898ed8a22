"""Every CMake option of a build apart from compilers and launcher."""

from __future__ import annotations

import platform
import re

from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.build.tools import Tools


def cmake_options(request: BuildRequest, source: PatchedSource, tools: Tools) -> dict[str, str]:
    """Every CMake option of a build apart from compilers and launcher; the user's own come last and win."""
    return {
        "CMAKE_BUILD_TYPE": "Release",
        # Programs find their libraries beside themselves wherever the folder is moved. A path for the build alone would
        # be padded with a colon, which also means the folder that a user happens to be in.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "@loader_path" if platform.system() == "Darwin" else "$ORIGIN",
        # Otherwise the configure step downloads a web page.
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "GGML_NATIVE": "OFF" if request.choices.portable else "ON",
        # The launcher below does this, and would do it twice.
        "GGML_CCACHE": "OFF",
        # Without git, ggml reports the commit that we name instead of whatever repository is around.
        "GIT_EXE": "",
        "LLAMA_BUILD_NUMBER": "0",
        "LLAMA_BUILD_COMMIT": build_commit(source),
        **(request.platform.options() if request.platform else {}),
        **request.backend.options(tools, request.choices),
        **dict(request.options),
    }


def build_commit(source: PatchedSource) -> str:
    """What the programs report with --version: upstream, as it is known, and nine digits of the patched tree."""
    known = re.sub(r"[^\w.-]", "-", source.upstream.short)  # it becomes a part of file names, too
    return f"{known}-turbo-{source.tree[:9]}"
