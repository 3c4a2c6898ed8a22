"""What the programs consist of, and under which licences: a table, and the texts as the vendored tree holds them.

The table follows what upstream compiles into its libraries. A folder of upstream's `vendor/` that it does not know, and
a licence text that is no longer where it was, stop a package: somebody has to look.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import PackageError

SELF = Path(__file__)
GITHUB = "https://github.com"
PUBLIC = "public domain"


@dataclass(frozen=True)
class Part:
    """A piece of software that is compiled in; `home` is '' where upstream does not tell where it comes from.

    `licence` is an SPDX expression or PUBLIC, `text` the file that holds its words, `lines` patterns of their first and
    last line where the file holds other things too. `version` is a file and a pattern whose groups, joined by dots, are
    the version. `folder` is the one in upstream's `vendor/`. A `library` has it, not only programs.
    """

    name: str
    home: str
    licence: str
    text: str
    lines: tuple[str, str] | None = None
    version: tuple[str, str] | None = None
    folder: str = ""
    library: bool = False

    @property
    def file_name(self) -> str:
        """The name of its licence text in a package."""
        return f"LICENSE-{self.name}"


def _defines(prefix: str, *names: str) -> str:
    return r"[\s\S]*?".join(rf"{prefix}{name}\s+(\d+)" for name in names)


PARTS = (
    Part("llama.cpp", f"{GITHUB}/ggml-org/llama.cpp", "MIT", "LICENSE", library=True),
    Part(
        "ggml",
        f"{GITHUB}/ggml-org/ggml",
        "MIT",
        "LICENSE",
        version=("ggml/CMakeLists.txt", _defines("GGML_VERSION_", "MAJOR", "MINOR", "PATCH")),
        library=True,
    ),
    Part(
        "llamafile",
        f"{GITHUB}/mozilla-ai/llamafile",
        "MIT",
        "ggml/src/ggml-cpu/llamafile/sgemm.cpp",
        (r"// Copyright .*Mozilla", r"// SOFTWARE\."),
        library=True,
    ),
    Part(
        "yarn",
        f"{GITHUB}/jquesnelle/yarn",
        "MIT",
        "ggml/src/ggml-cpu/ops.cpp",
        (r"// YaRN", r"// MIT licensed\."),
        library=True,
    ),
    Part(
        "base64",
        "",
        "Unlicense",
        "common/base64.hpp",
        (r"This is free and unencumbered", r"For more information"),
    ),
    Part(
        "cpp-httplib",
        f"{GITHUB}/yhirose/cpp-httplib",
        "MIT",
        "vendor/cpp-httplib/LICENSE",
        version=("vendor/cpp-httplib/httplib.h", r'CPPHTTPLIB_VERSION "([\d.]+)"'),
        folder="cpp-httplib",
    ),
    Part(
        "nlohmann-json",
        f"{GITHUB}/nlohmann/json",
        "MIT",
        "licenses/LICENSE-jsonhpp",
        version=("vendor/nlohmann/json.hpp", r"version (\d+\.\d+\.\d+)"),
        folder="nlohmann",
    ),
    Part(
        "miniaudio",
        f"{GITHUB}/mackron/miniaudio",
        "MIT-0",
        "vendor/miniaudio/miniaudio.h",
        (r"ALTERNATIVE 2 - MIT", r"^SOFTWARE\.$"),
        ("vendor/miniaudio/miniaudio.h", r"miniaudio - v([\d.]+)"),
        "miniaudio",
    ),
    Part(
        "stb_image",
        f"{GITHUB}/nothings/stb",
        "MIT",
        "vendor/stb/stb_image.h",
        (r"ALTERNATIVE A - MIT", r"^SOFTWARE\.$"),
        ("vendor/stb/stb_image.h", r"stb_image - v([\d.]+)"),
        "stb",
    ),
    Part(
        "subprocess.h",
        f"{GITHUB}/sheredom/subprocess.h",
        "Unlicense",
        "vendor/sheredom/subprocess.h",
        (r"\s*This is free and unencumbered", r"\s*For more information"),
        folder="sheredom",
    ),
    Part(
        "xxhash",
        f"{GITHUB}/Cyan4973/xxHash",
        "BSD-2-Clause",
        "vendor/hash/xxhash/LICENSE",
        version=("vendor/hash/xxhash/xxhash.h", _defines("XXH_VERSION_", "MAJOR", "MINOR", "RELEASE")),
        folder="hash",
    ),
    Part("sha1", f"{GITHUB}/clibs/sha1", PUBLIC, "vendor/hash/sha1/sha1.c", (r"SHA-1 in C", r"100%")),
    Part("sha256", f"{GITHUB}/jb55/sha256.c", PUBLIC, "vendor/hash/sha256/LICENSE"),
    Part("rotate-bits", f"{GITHUB}/jb55/rotate-bits.h", "MIT", "vendor/hash/rotate-bits/LICENSE.md"),
)


def licence_text(part: Part, tree: Path) -> str:
    """The words of its licence. Raises PackageError if they are not where the table says."""
    text = _read(part, tree, part.text)
    if part.lines is None:
        return text
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if re.match(part.lines[0], line)), len(lines))
    last = next((n for n in range(first, len(lines)) if re.search(part.lines[1], lines[n])), None)
    if last is None:
        raise _unknown(f"{part.text} no longer holds the licence of {part.name}")
    return "".join(f"{re.sub(r'^//? ?', '', line).strip()}\n" for line in lines[first : last + 1])


def version_of(part: Part, tree: Path) -> str:
    """Its version, '' where its files do not tell one. Raises PackageError if they no longer do."""
    if part.version is None:
        return ""
    file, pattern = part.version
    found = re.search(pattern, _read(part, tree, file))
    if not found:
        raise _unknown(f"{file} no longer tells the version of {part.name}")
    return ".".join(found.groups())


def licence_texts(tree: Path) -> Mapping[str, str]:
    """The licence of every part, by file name. Raises PackageError if upstream vendors what the table does not know."""
    known = {part.folder for part in PARTS}
    strange = sorted(path.name for path in (tree / "vendor").iterdir() if path.is_dir() and path.name not in known)
    if strange:
        raise _unknown(f"upstream vendors {', '.join(strange)}, whose licence is not known")
    return {part.file_name: licence_text(part, tree) for part in PARTS}


def _read(part: Part, tree: Path, file: str) -> str:
    try:
        return (tree / file).read_text(encoding="utf-8")
    except OSError as error:
        raise _unknown(f"{file}, for the licence of {part.name}: {error.strerror}") from error


def _unknown(message: str) -> PackageError:
    return PackageError(message, hint=f"state it in {SELF.name}, then turbotool package")
