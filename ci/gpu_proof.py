"""Prove and measure the patched llama.cpp on a machine with an NVIDIA GPU, without a network and with one command.

`python ci/gpu_proof.py pack FOLDER` makes a folder to take there. `sh FOLDER/run.sh` there builds for its GPU on all
cores, runs test-turbo-backend, test-backend-ops, `turbotool verify` and a short `turbotool bench`, and writes every
figure into one JSON document. There it needs nvcc, CMake, a C++ compiler and the standard library of Python 3.10.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gpu_figures as figures
from gpu_stage import Result, Stage, run_stages
from gpu_toolkit import Gpu, Toolkit, architectures, find_gpus, find_toolkit, said

HERE = Path(__file__).resolve().parent
MINUTES = 12.0
JOB_BYTES = 2 << 30  # memory of a compiler; nvcc takes up to this for flash attention
BENCH = {"cuda": ("f16,q8_0,q8_0/turbo4,turbo4", "0,4096"), "cpu": ("f16,turbo4", "0,512")}
ROUNDS = 2
STAGES = ("configure", "build", "devices", "test-turbo-backend", "test-backend-ops", "verify", "bench")


@dataclass(frozen=True)
class Machine:
    """Where the proof runs; memory in bytes, versions as the tools tell them, '' for what is not there.

    `loopback`: can programs here reach one another? llama-cli waits for ever for its own server where they cannot.
    """

    system: str
    processor: str
    cpus: int
    memory_bytes: int
    python: str
    cmake: str
    ninja: str
    compiler: str
    nvcc: str
    gpus: tuple[Gpu, ...]
    loopback: bool


@dataclass(frozen=True)
class Proof:
    """A run of a pack: its folder and facts, the backend, what was found on the machine."""

    folder: Path
    pack: Mapping[str, Any]
    backend: str
    machine: Machine
    toolkit: Toolkit | None
    ninja: str
    arch: str

    @property
    def build(self) -> Path:
        return self.folder / "build" / self.backend

    @property
    def bin(self) -> Path:
        return self.build / "bin"

    @property
    def site(self) -> Path:
        return self.folder / "build" / "site"

    @property
    def device(self) -> str:
        return str(self.pack["backends"][self.backend]["device"])

    @property
    def env(self) -> dict[str, str]:
        """turbotool and its packages come from the pack; what this Python has serves where they lack something."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TURBOTOOL_", "PYTHON"))}
        paths = [str(self.folder), str(self.site), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "TURBOTOOL_CACHE": str(self.folder / "cache")}
        return {**kept, **own, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

    @property
    def options(self) -> dict[str, str]:
        """CMake options: turbotool's own, then those of this machine."""
        options: dict[str, str] = dict(self.pack["backends"][self.backend]["options"])
        if self.ninja:
            options["CMAKE_MAKE_PROGRAM"] = self.ninja
        if self.backend == "cuda" and self.toolkit:
            options |= self.toolkit.options()
        if self.backend == "cuda" and self.arch:
            options["CMAKE_CUDA_ARCHITECTURES"] = self.arch
        return options


def unpack(folder: Path, pack: Mapping[str, Any]) -> None:
    """Unpack the sources and the wheels for this Python, unless that was done.

    Without wheels for it all but turbotool's own stages can still run.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version not in pack["wheels"]:
        print(f"the pack is for Python {', '.join(pack['wheels'])}, and this is {version}", file=sys.stderr)
    wheels = [folder / "wheels" / name for name in pack["wheels"].get(version, [])]
    for archives, target in (([folder / "llama.cpp.zip"], "vendor/llama.cpp"), (wheels, "build/site")):
        place, done = folder / target, folder / target / ".unpacked"
        names = " ".join(archive.name for archive in archives)
        if done.is_file() and done.read_text(encoding="utf-8") == names:
            continue
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for archive in archives:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(place)
        done.write_text(names, encoding="utf-8")


def find_ninja(site: Path) -> str:
    """The ninja of the pack's wheel, or that of the machine; '' if there is none."""
    for path in sorted(site.glob("ninja*/**/ninja")):
        if path.is_file():
            path.chmod(0o755)
            if said(str(path), "--version"):
                return str(path)
    return shutil.which("ninja") or ""


def first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def has_loopback() -> bool:
    """Whether a server on 127.0.0.1 can be reached; in a network namespace of its own it is down at first."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError:
        return False
    return True


def read_machine(toolkit: Toolkit | None, ninja: str) -> Machine:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Machine(
        system=platform.platform(),
        processor=models[0] if models else platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        cmake=first_line(said("cmake", "--version")),
        ninja=first_line(said(ninja, "--version")) if ninja else "",
        compiler=first_line(said("c++", "--version")),
        nvcc=toolkit.version if toolkit else "",
        gpus=find_gpus(),
        loopback=has_loopback(),
    )


def plan(proof: Proof, jobs: int) -> list[Stage]:
    """The stages in order, with seconds that fit MINUTES: the build takes most of them."""
    tree, build, bin_dir = proof.folder / "vendor" / "llama.cpp", proof.build, proof.bin
    given = [f"-D{name}={value}" for name, value in proof.options.items()]
    ops = proof.pack["operations"]
    names, types = tuple(ops["names"]), tuple(ops["types"])
    asked = ["test", "-o", ",".join(names), "-p", ops["pattern"], "-j", str(proof.machine.cpus), "-b", proof.device]
    cuda = proof.backend == "cuda"
    stages = [
        Stage(
            "configure", ("cmake", "-S", str(tree), "-B", str(build), "-G", "Ninja", *given), 90, 30, figures.configured
        ),
        Stage(
            "build",
            (proof.ninja, "-C", str(build), "-k", "0", "-j", str(jobs), *proof.pack["targets"]),
            3600,
            240,
            figures.built(build),
            (build / "build.ninja",),
        ),
        _program(proof, "test-turbo-backend", [], 120, 20, figures.compared(other_device=cuda)),
        _program(proof, "test-backend-ops", asked, 240, 40, figures.operations(names, types)),
        _verify(proof),
        _bench(proof),
    ]
    if cuda:
        listing = Stage(
            "devices",
            (str(bin_dir / "llama-cli"), "--list-devices"),
            60,
            5,
            figures.listed(proof.device),
            (bin_dir / "llama-cli",),
        )
        stages.insert(2, listing)
    return stages


def _program(proof: Proof, name: str, words: Sequence[str], limit: float, least: float, read: Any) -> Stage:
    path = proof.bin / name
    return Stage(name, (str(path), *words), limit, least, read, (path,))


def _turbotool(proof: Proof, command: str, *words: str) -> tuple[str, ...]:
    chosen = ("--backend", proof.backend, "--bin-dir", str(proof.bin))
    return (sys.executable, "-m", "turbotool", command, *chosen, *words, "--json")


def _verify(proof: Proof) -> Stage:
    """Every check; without numpy those that write models of their own are left out, and the document says so."""
    importable = [sys.executable, "-c", "import gguf"]
    without = subprocess.run(importable, env=proof.env, capture_output=True, check=False).returncode != 0
    left_out = tuple(proof.pack["numpy_checks"]) if without else ()
    named = [word for name in proof.pack["checks"] if name not in left_out for word in ("--check", name)]
    words = _turbotool(proof, "verify", "-v", *(named if left_out else ()))
    read = figures.verified(
        left_out, "this Python cannot import gguf, which needs numpy", all_run=proof.backend == "cuda"
    )
    needs = (proof.bin / "llama-completion", _model(proof))
    blocked = "" if proof.machine.loopback else "127.0.0.1 cannot be reached: ip link set lo up"
    return Stage("verify", words, 420, 90, read, needs, blocked)


def _bench(proof: Proof) -> Stage:
    kv, depths = BENCH[proof.backend]
    # with everything on the GPU more threads only wait for one another
    threads = "1" if proof.backend == "cuda" else str(proof.machine.cpus)
    words = _turbotool(
        proof, "bench", "--kv", kv, "--depth", depths, "--threads", threads, "--repeat", str(ROUNDS), "--no-plot"
    )
    return Stage("bench", words, 180, 60, figures.document, (proof.bin / "llama-bench", _model(proof)))


def _model(proof: Proof) -> Path:
    return proof.folder / str(proof.pack["model"]["path"])


def find(folder: Path, backend: str, arch: str) -> Proof:
    """Unpack, and look at the machine."""
    pack = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    unpack(folder, pack)
    ninja = find_ninja(folder / "build" / "site")
    toolkit = find_toolkit(folder / "build" / "cuda-links", os.environ) if backend == "cuda" else None
    machine = read_machine(toolkit, ninja)
    return Proof(folder, pack, backend, machine, toolkit, ninja, arch or architectures(machine.gpus))


def describe(
    proof: Proof, started: datetime, seconds: float, results: Sequence[Result], only: Sequence[str], *, done: bool
) -> dict[str, Any]:
    """The document. `ok`: every stage, or those in `only`, was run and none failed."""
    pack = proof.pack
    return {
        "schema": "turbotool.gpu-proof",
        "version": 1,
        "ok": done and bool(results) and all(result.ok for result in results),
        "complete": done,
        "only": list(only),
        "backend": proof.backend,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "upstream": pack["upstream"],
        "series_tree": pack["series_tree"],
        "turbotool": pack["turbotool"],
        "machine": asdict(proof.machine),
        "cublas": proof.toolkit.cublas if proof.toolkit else None,
        "cmake_options": proof.options,
        "stages": [asdict(result) for result in results],
    }


def run(folder: Path, backend: str, out: Path, minutes: float, *, arch: str = "", only: Sequence[str] = ()) -> bool:
    """Run the stages and write the document after each of them, so that whatever ends this leaves what was found."""
    started, clock = datetime.now(timezone.utc), time.monotonic()
    proof = find(folder, backend, arch)
    jobs = max(1, min(proof.machine.cpus, proof.machine.memory_bytes // JOB_BYTES))
    scale = minutes / MINUTES
    scaled = (replace(stage, limit=stage.limit * scale, least=stage.least * scale) for stage in plan(proof, jobs))
    stages = [stage for stage in scaled if not only or stage.name in only]
    logs = folder / "build" / "proof-logs"
    logs.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []

    def save(*, done: bool) -> dict[str, Any]:
        text = describe(proof, started, time.monotonic() - clock, results, only, done=done)
        scratch = out.with_name(f".{out.name}.part")
        scratch.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
        scratch.replace(out)
        return text

    save(done=False)
    left = minutes * 60 - (time.monotonic() - clock)
    for result in run_stages(stages, left, logs, cwd=folder, env=proof.env):
        results.append(result)
        save(done=False)
        print(
            f"{result.status:9} {result.name:20} {result.seconds:7.1f} s  {result.reason}", file=sys.stderr, flush=True
        )
    return bool(save(done=True)["ok"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    if (HERE / "gpu_pack.py").is_file():
        packing = commands.add_parser("pack", help="make a folder to take to the machine")
        packing.add_argument("folder", type=Path)
        packing.add_argument("--tree", type=Path, help="the patched tree (default: the vendored one)")
        packing.add_argument("--python", action="append", metavar="3.N", help="a version there (default: all)")
        packing.add_argument("--numpy", action="store_true", help="with numpy, for one or two versions of Python")
    running = commands.add_parser("run", help="build, prove and measure on this machine, from the pack")
    running.add_argument("--backend", choices=("cuda", "cpu"), default="cuda")
    running.add_argument("--out", type=Path, default=HERE / "gpu-proof.json", help="the document")
    running.add_argument("--minutes", type=float, default=MINUTES, help="for everything (default: 12)")
    running.add_argument("--arch", default="", help="compile for this, such as 90-real (default: the GPUs here)")
    running.add_argument("--only", action="append", default=[], choices=STAGES, help="may be repeated")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that a stage ends with this
    if given.command == "pack":
        import gpu_pack

        from turbotool.layout import find_layout

        gpu_pack.main(given.folder, find_layout(), given.tree, given.python or gpu_pack.PYTHONS, given.numpy)
    elif not run(HERE, given.backend, given.out.absolute(), given.minutes, arch=given.arch, only=given.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
