"""What two builds of libggml-cuda have in common: `python tests/native/cuda/compare.py OLD NEW`, each a library's path.

Needs LIEF (in the `dev` extra) and `cuobjdump` (`pip install nvidia-cuda-cuobjdump`, then its folder in PATH). A kernel
is known by its name, without the hashes of the source's path that nvcc puts into names that are local to a file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


def plain(name: str) -> str:
    return re.sub(r"_INTERNAL_[0-9a-f]{8}_", "_INTERNAL_", re.sub(r"_cu_[0-9a-f]{8}", "_cu_", name))


def cuobjdump(*words: str | Path, folder: Path) -> str:
    program = shutil.which("cuobjdump")
    if not program:
        sys.exit("cuobjdump is not in PATH: pip install nvidia-cuda-cuobjdump")
    return subprocess.run([program, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def machine_code(library: Path) -> dict[str, bytes]:
    """The instructions of each kernel."""
    import lief

    lief.logging.disable()  # it does not know what is particular to CUDA, and says so for each section
    with tempfile.TemporaryDirectory() as name:
        cuobjdump("-xelf", "all", library, folder=Path(name))
        cubins = [lief.ELF.parse(str(path)) for path in sorted(Path(name).glob("*.cubin"))]
    sections = [section for cubin in cubins if cubin for section in cubin.sections]
    marked = [(str(section.name), section) for section in sections if str(section.name).startswith(".text.")]
    return {plain(name.removeprefix(".text.")): bytes(section.content) for name, section in marked}


def usage(library: Path) -> dict[str, tuple[int, int, int]]:
    """Registers, bytes of stack and bytes of local memory beside the stack of each kernel."""
    found = USAGE.findall(cuobjdump("-res-usage", library, folder=library.parent))
    return {plain(name): (int(registers), int(stack), int(local)) for name, registers, stack, local in found}


def main(old: Path, new: Path) -> None:
    code, codes, held, holds = machine_code(old), machine_code(new), usage(old), usage(new)
    both, added = code.keys() & codes.keys(), codes.keys() - code.keys()
    same, alike = sum(code[name] == codes[name] for name in both), sum(held[name] == holds[name] for name in both)
    print(f"{len(code)} kernels before, {len(both)} of them still there, {len(added)} more")
    print(f"still there: {same} with the same machine code, {alike} with the same registers, stack and local memory")
    stacks, locals_ = (dict(Counter(holds[name][i] for name in added)) for i in (1, 2))
    print(f"more: {stacks} by bytes of stack, {locals_} by bytes of local memory")
    for name in sorted(both):
        if code[name] != codes[name]:
            print(f"differs: {name}, {held[name]} before, {holds[name]} now")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
