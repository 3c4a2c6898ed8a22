"""What the commands that measure and plan build, print and write into reports are documents that come back whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import Done, private, typed
from eval_site import KV, EvalSite
from fake_eval import eval_programs
from fake_tools import STOCK_TYPES, llama_bench
from published import held
from tiny_gguf import gguf, gguf_of, write

from turbotool.system.documents import as_builtins, decode, encode
from turbotool.system.output import Output

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

SMALL = ("--pp", "4", "--tg", "2", "--threads", "1", "--depth", "0,512", "--repeat", "1")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The documents that commands hand over to be printed."""
    found: list[object] = []
    document = Output.document

    def watched(out: Output, data: object) -> None:
        found.append(data)
        document(out, data)

    monkeypatch.setattr(Output, "document", watched)
    return found


def require_whole(built: list[object], done: Done, schema: str) -> None:
    """The document that was built is the one that was printed, and comes back as it was from its own bytes."""
    (one,) = built
    built.clear()
    assert decode(encode(one), type(one), "it") == one
    assert as_builtins(one) == done.document
    assert (done.document["schema"], done.document["version"]) == (f"turbotool.{schema}", 1)
    assert done.document["ok"] is ("error" not in done.document) is (done.code == 0)


def require_shown(path: Path, printed: Mapping[str, object]) -> None:
    """A document of a report: the same kind as the printed one, without what names a folder of the machine."""
    shown = held(path.read_text(encoding="utf-8"))
    assert shown["schema"] == printed["schema"]
    assert printed.keys() - shown.keys() <= {"log", "error"}
    assert str(path.parents[1]) not in json.dumps(shown)


@pytest.mark.parametrize(
    "trouble", [{}, {"q8_0/q8_0/off": "SIGSEGV", "q8_0/turbo4/v": "nan", "f16/f16/off": "SIGABRT"}]
)
def test_an_evaluation(site: EvalSite, built: list[object], trouble: Mapping[str, str]) -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    eval_programs(site.folder / "bin", trouble=trouble)
    done = site.eval(*KV, "--report", site.folder / "report", "--json")
    assert (done.code != 0) == bool(trouble)
    require_whole(built, done, "eval")
    require_shown(site.folder / "report" / "eval.json", done.document)


@pytest.mark.parametrize("trouble", [{}, {"model.gguf: base": "SIGSEGV", "phi.gguf: q8_0/turbo4/v": "SIGABRT"}])
def test_an_evaluation_of_several_models(site: EvalSite, built: list[object], trouble: Mapping[str, str]) -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("matplotlib")
    eval_programs(site.folder / "bin", trouble=trouble)
    (site.folder / "phi.gguf").write_bytes(gguf() + bytes(32))
    done = site.eval(site.folder / "phi.gguf", *KV, "--report", site.folder / "report", "--json")
    assert (done.code != 0) == bool(trouble)
    require_whole(built, done, "models")
    require_shown(site.folder / "report" / "models.json", done.document)


def test_two_result_sets_and_what_is_none(
    site: EvalSite, built: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    for name, trouble in (("a", {}), ("b", {"q8_0/turbo4/v": "nan", "q8_0/q8_0/off": "SIGSEGV"})):
        (site.folder / "bin" / "libggml.so").write_text(name)
        eval_programs(site.folder / "bin", trouble=trouble)
        (site.folder / f"{name}.json").write_text(site.eval(*KV, "--json").stdout)
    built.clear()
    words: list[str | Path] = ["eval", "compare", site.folder / "a.json", site.folder / "b.json", "--json"]
    done = typed([*words, "--report", site.folder / "report"], capsys)
    require_whole(built, done, "compare")
    require_shown(site.folder / "report" / "compare.json", done.document)
    assert None in {one["b"] for one in done.document["differences"]}
    (site.folder / "b.json").write_text("{}")
    require_whole(built, typed(words, capsys), "error")


def test_the_plans_that_are_shipped(built: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    require_whole(built, typed(["eval", "--list-plans", "--json"], capsys), "plans")


@pytest.mark.parametrize("trouble", [{}, {"turbo4@512": "config", "q8_0@0": "SIGABRT"}])
def test_a_benchmark(
    tmp_path: Path,
    built: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Mapping[str, str],
) -> None:
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    llama_bench(tmp_path / "ours", trouble=trouble)
    llama_bench(tmp_path / "stock", types=list(STOCK_TYPES), commit="5t0cc")
    named: list[str | Path] = [
        "--model",
        write(tmp_path, gguf()),
        "--bin-dir",
        tmp_path / "ours",
        "--against",
        tmp_path / "stock",
    ]
    report: list[str | Path] = ["--report", tmp_path / "report", "--no-plot", "--json"]
    done = typed(["bench", *named, "--kv", "f16,q8_0,turbo4", *SMALL, *report], capsys)
    assert (done.code != 0) == bool(trouble)
    require_whole(built, done, "bench")
    require_shown(tmp_path / "report" / "bench.json", done.document)


@pytest.mark.parametrize(
    ("arch", "keys"),
    [
        ("llama", {}),
        ("llama", {"attention.key_length": 80, "attention.value_length": 80}),  # which turbo blocks do not divide
        ("gemma3", {"attention.sliding_window": 512}),
        ("mamba", {"attention.head_count": 0, "ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 16}),
        ("bert", {}),  # refused
    ],
)
@pytest.mark.parametrize("budget", [(), ("--budget", "1GiB"), ("--budget", "2GiB", "--parallel", "2")])
def test_a_memory_plan(
    tmp_path: Path,
    built: list[object],
    capsys: pytest.CaptureFixture[str],
    arch: str,
    keys: Mapping[str, int],
    budget: tuple[str, ...],
) -> None:
    done = typed(["plan", write(tmp_path, gguf_of(arch, dict(keys))), *budget, "--json"], capsys)
    assert (done.code != 0) == (arch == "bert")
    require_whole(built, done, "error" if done.code else "plan")


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "nowhere.gguf"),
        ("eval", "--plan", "unknown"),
        ("eval", "--kv", "turbo5"),
        ("bench", "--model", "nowhere.gguf"),
        ("bench", "--pp", "0", "--tg", "0"),
        ("serve", "nowhere.gguf"),
        ("serve", "nowhere.gguf", "--memory", "24"),
        ("plan", "nowhere.gguf"),
        ("plan", "--budget", "24"),
    ],
)
def test_a_command_that_is_refused(
    tmp_path: Path,
    built: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    done = typed([*words, "--json"], capsys)
    assert done.code == done.document["error"]["code"] != 0
    require_whole(built, done, "error")
