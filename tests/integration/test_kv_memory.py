"""Sizes that `turbotool plan` calculates, against the KV and RS buffers that the built programs report.

Upstream's test-llama-archs writes a small random model of every architecture that it can. Files list which layers have
windows, so models with more layers are made of them that leave it to the architecture.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import document

from turbotool.inputs.model import Model, read_model
from turbotool.inputs.shape import OTHER_CACHES, WINDOWS, WITHOUT_CACHE
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import UNCALIBRATED
from turbotool.kv.effective import parse_effective
from turbotool.kv.serving import LLAMA_SERVER, ONE, Serving, server_command
from turbotool.kv.size import MIB, expected_mib, kv_bytes, refusal, state_bytes
from turbotool.programs.runner import CACHE_VARIABLE, clean_environment
from turbotool.system.process import run

pytestmark = pytest.mark.slow

PAIRS = tuple(map(CachePair.parse, ("f16", "q8_0/turbo4", "turbo3")))
CONTEXTS = (300, 5000, 16384)
RS_BUFFER = re.compile(r"RS buffer size = *([\d.]+) MiB")
PRINTED = 0.005  # MiB: sizes are printed with two decimals
ALIGNMENT = 1e-4  # MiB: a buffer begins its tensors at multiples of some bytes
WINDOW = 700
# the layer that each layer is a copy of, for architectures whose layers are not all alike
COPIED = {"exaone-moe": 1, "cohere2moe": 1, "laguna": 1, "afmoe": 1}
SECONDS = 900  # of a run that takes a fraction of one: the machine may be busy


def completed(bin_dir: Path, model: Path, pair: CachePair, ctx: int) -> str:
    """What llama-completion prints, however it ends: a random model may have nothing to say."""
    words = ["-c", str(ctx), "-n", "1", "-no-cnv", "-p", "x", "--no-warmup", "-fit", "off", "-t", "1", "-lv", "4"]
    command: list[str | Path] = [bin_dir / "llama-completion", "-m", model, *words, *pair.flags]
    return run(
        command, cwd=bin_dir, env=clean_environment(UNCALIBRATED.environment), timeout=SECONDS, check=False
    ).output


def fault(model: Model, pair: CachePair, ctx: int, serving: Serving, log: str) -> str:
    """How the reported buffers differ from the calculated ones; empty if they do not."""
    served = log.rpartition("llama_context: n_ctx ")[2]  # one before it has measured the calibration
    effective, states = parse_effective(log), sum(map(float, RS_BUFFER.findall(served)))
    if reason := refusal(model.kv, pair):
        return f"not refused, though {reason}" if effective.buffers else ""
    wanted = kv_bytes(model.kv, pair, ctx, serving) / MIB
    found = sum(mib for _, mib in effective.buffers)
    each = expected_mib(model.kv, pair, effective.caches)
    if each is None:
        return f"reports {effective.caches}, expected {model.kv.caches}"
    margin = (PRINTED + ALIGNMENT) * max(1, len(effective.buffers))
    if abs(found - wanted) > margin or abs(sum(each) - wanted) > 0:
        return f"{pair} at {ctx}: reports {found} MiB, by its cells {sum(each)}, calculated {wanted}"
    own = state_bytes(model.kv, serving) / MIB
    return f"states of {states} MiB, calculated {own}" if abs(states - own) > PRINTED + ALIGNMENT else ""


@pytest.fixture(scope="module")
def models(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    program = Path(built["bin_dir"]) / "test-llama-archs"
    subprocess.run([program, "-o", folder, "-v", "0"], check=True, timeout=10 * SECONDS, env=clean_environment({}))
    yield folder
    shutil.rmtree(folder)


def test_every_architecture_of_upstream_has_the_caches_that_are_calculated(
    built: dict[str, Any],
    models: Path,
) -> None:
    faults: dict[tuple[str, str], str] = {}
    known: set[str] = set()
    unknown: set[str] = set()
    for path in sorted(models.glob("*.gguf")):
        model = read_model(path)
        (unknown if model.kv.problem else known).add(model.arch)
        for pair in () if model.kv.problem else PAIRS:
            said = fault(model, pair, 4096, ONE, completed(Path(built["bin_dir"]), path, pair, 4096))
            if said:
                faults[path.name, str(pair)] = said
    assert faults == {}
    assert unknown <= {*OTHER_CACHES, *WITHOUT_CACHE}
    assert known >= {"llama", "gemma3", "deepseek2", "jamba", "falcon-h1", "mamba", "qwen35", "lfm2", "minimax-01"}


def deepened(source: Path, target: Path, layers: int, keys: Mapping[str, int | None]) -> Path:
    """A copy with as many layers, made of those that are there, and with other keys; None takes one out."""
    import gguf

    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    there = reader.fields[f"{arch}.block_count"].contents()
    writer = gguf.GGUFWriter(target, arch)
    changed = {f"{arch}.{name}": value for name, value in {"block_count": layers, **keys}.items()}
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in changed:
            continue
        value, kinds = field.contents(), field.types
        if value == []:  # upstream writes such, the writer here does not
            continue
        if isinstance(value, list) and len(value) == there and name.startswith(arch):
            value = [value[_origin(arch, layer, there)] for layer in range(layers)]
        writer.add_key_value(name, value, kinds[0], kinds[-1] if len(kinds) > 1 else None)
    for name, number in changed.items():
        if number is not None:
            writer.add_uint32(name, number)
    for tensor in reader.tensors:
        match = re.fullmatch(r"blk\.(\d+)\.(.*)", tensor.name)
        copies = [layer for layer in range(layers) if match and _origin(arch, layer, there) == int(match[1])]
        for name in [f"blk.{layer}.{match[2]}" for layer in copies] if match else [tensor.name]:
            writer.add_tensor(name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _origin(arch: str, layer: int, there: int) -> int:
    return min(layer, COPIED[arch]) if arch in COPIED else layer % there


def test_windows_are_where_the_architecture_puts_them(
    built: dict[str, Any],
    models: Path,
    tmp_path: Path,
) -> None:
    faults, seen = {}, set()
    unlisted = {"attention.sliding_window_pattern": None, "attention.sliding_window": WINDOW}
    for arch, rule in WINDOWS.items():
        for source in models.glob(f"{arch}-*.gguf") if rule.period else ():
            layers = rule.layers or 2 * (rule.period or 0) + 1
            path = deepened(source, tmp_path / source.name, layers, unlisted)
            model = read_model(path)
            seen.add(arch)
            assert len(model.kv.caches) == 2, arch
            for pair in PAIRS:
                for ctx in CONTEXTS:
                    if said := fault(model, pair, ctx, ONE, completed(Path(built["bin_dir"]), path, pair, ctx)):
                        faults[arch, str(pair), ctx] = said
            path.unlink()
    assert faults == {}
    assert seen >= {arch for arch, rule in WINDOWS.items() if rule.period} - {"gemma3n"}  # which upstream cannot save


def served(bin_dir: Path, command: str, log: Path) -> str:
    """What llama-server logs until it has its caches, started with a command as it was printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name, *words = shlex.split(command)
    more = ["--port", str(port), "-lv", "4", "--no-warmup", "-t", "1"]
    env = clean_environment({CACHE_VARIABLE: str(log.parent)})
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [bin_dir / name, *words, *more], stdout=sink, stderr=sink, env=env, start_new_session=True
        )
    try:
        for _ in range(10 * SECONDS):
            text = log.read_text(encoding="utf-8", errors="replace")
            if "listening on http" in text or child.poll() is not None:
                return text
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    raise AssertionError(f"llama-server did not start: {text[-2000:]}")


@pytest.mark.parametrize("serving", [LLAMA_SERVER, Serving(3, shared=False)], ids=["as it does itself", "-np 3"])
def test_a_server_that_is_started_as_planned_has_the_size_that_was_planned(
    built: dict[str, Any],
    models: Path,
    tmp_path: Path,
    serving: Serving,
) -> None:
    bin_dir, faults = Path(built["bin_dir"]), {}
    unlisted = {"attention.sliding_window_pattern": None, "attention.sliding_window": WINDOW}
    paths = [deepened(models / "gemma3-dense.gguf", tmp_path / "gemma3.gguf", 13, unlisted)]
    paths += [models / "falcon-h1-dense.gguf", models / "deepseek2-moe.gguf"]
    for path in paths:
        model = read_model(path)
        for pair in [one for one in PAIRS if not refusal(model.kv, one)]:
            command = server_command(path, pair, 5000, serving)
            if said := fault(model, pair, 5000, serving, served(bin_dir, command, tmp_path / "server.log")):
                faults[path.name, str(pair)] = said
    assert faults == {}


def test_what_plan_prints_for_the_default_model_is_what_the_programs_report(built: dict[str, Any]) -> None:
    found = document("plan", "--ctx", "512,4096,8192")
    for row in found["rows"]:
        for size in row["sizes"]:
            words = shlex.split(size["command"])
            model = Path(words[words.index("-m") + 1])
            log = completed(Path(built["bin_dir"]), model, CachePair(row["k"], row["v"]), size["ctx"])
            assert sum(mib for _, mib in parse_effective(log).buffers) == pytest.approx(
                size["kv_bytes"] / MIB, abs=PRINTED + ALIGNMENT
            )
