"""The files of llama.cpp that tell licences and versions, each as short as it can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from turbotool.release.parts import PARTS

VERSIONS = {
    "ggml/CMakeLists.txt": "set(GGML_VERSION_MAJOR 0)\nset(GGML_VERSION_MINOR 25)\nset(GGML_VERSION_PATCH 3)\n",
    "vendor/cpp-httplib/httplib.h": '#define CPPHTTPLIB_VERSION "0.58.0"\n',
    "vendor/nlohmann/json.hpp": "// version 3.12.0\n",
    "vendor/hash/xxhash/xxhash.h": "#define XXH_VERSION_MAJOR 0\n#define XXH_VERSION_MINOR 8\n"
    "#define XXH_VERSION_RELEASE 3\n",
}
NOTICES = {
    "ggml/src/ggml-cpu/llamafile/sgemm.cpp": "// Copyright 2024 Mozilla Foundation\n//\n// SOFTWARE.\n\nint x;\n",
    "ggml/src/ggml-cpu/ops.cpp": "int y;\n// YaRN algorithm\n// MIT licensed. Copyright\nint z;\n",
    "common/base64.hpp": "/*\nThis is free and unencumbered\nFor more information\n*/\n",
    "vendor/miniaudio/miniaudio.h": "/* miniaudio - v0.11.25 */\nALTERNATIVE 1\nSOFTWARE.\n"
    "ALTERNATIVE 2 - MIT\nSOFTWARE.\n",
    "vendor/stb/stb_image.h": "/* stb_image - v2.30 */\nALTERNATIVE A - MIT\nSOFTWARE.\n",
    "vendor/sheredom/subprocess.h": "   This is free and unencumbered\n   For more information\n",
    "vendor/hash/sha1/sha1.c": "/*\nSHA-1 in C\n100% Public Domain\n*/\n",
}
WHOLE = {part.text: f"licence of {part.name}\n" for part in PARTS if part.lines is None}
FILES: Mapping[str, str] = {**WHOLE, **VERSIONS, **NOTICES}


def write_parts(tree: Path) -> Path:
    """Write these files below `tree`, which is returned."""
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    return tree
