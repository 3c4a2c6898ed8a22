"""`turbotool bench attention` with a fake program whose times are known exactly."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Done, typed
from fake_tools import program, python_program

from turbotool.errors import BinaryFailed, ToolMissing, UsageMistake
from turbotool.programs.attentionspeed import PROGRAM

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

# f16 takes 20 ns, turbo4 5, each round one more; a build may be slower
SPEED = """
import itertools, json
here = os.path.dirname(os.path.abspath(sys.argv[0]))
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(os.path.join(here, "..", "runs.jsonl"), "a") as log:
    print(json.dumps([os.path.basename(here), given]), file=log)
rounds = sum(json.loads(line)[0] == os.path.basename(here) for line in open(os.path.join(here, "..", "runs.jsonl")))
lists = [given["--" + name].split(",") for name in ("types", "heads", "groups", "tokens", "depths", "threads")]
for kv, head, group, tokens, depth, threads in itertools.product(*lists):
    ns = (20 if kv == "f16" else 5) * FACTOR + rounds - 1
    print(json.dumps({"types": kv, "head": head, "group": int(group), "tokens": int(tokens), "depth": int(depth),
        "threads": int(threads), "ns_min": ns / 2, "ns_median": ns, "read_ns_median": 2.5, "more": "is passed over"}))
"""


@dataclass(frozen=True)
class Site:
    """A folder with two builds, the second of which takes twice the time."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def bench(self, *words: str | Path) -> Done:
        return typed(["bench", "attention", "--bin-dir", self.folder / "ours", *words], self.capsys)

    def asked(self) -> list[tuple[str, dict[str, str]]]:
        return [json.loads(line) for line in (self.folder / "runs.jsonl").read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("TURBOTOOL_WORK", str(tmp_path / "work"))
    for name, factor in (("ours", 1), ("stock", 2)):
        python_program(tmp_path / name / PROGRAM, f"FACTOR = {factor}\n{SPEED}")
    return Site(tmp_path, capsys)


def test_times_and_ratios_are_medians_of_rounds(site: Site) -> None:
    done = site.bench("--kv", "f16,turbo4", "--repeat", "3", "--json", "--against", site.folder / "stock")
    cells = {(cell["build"], cell["cache"]): cell for cell in done.document["cells"]}
    ours = cells["ours", "turbo4"]
    assert (ours["ns"], ours["ns_min"], ours["ns_max"], ours["ns_least"], ours["read_ns"]) == (6, 5, 7, 2.5, 2.5)
    assert ours["ratio_f16"] == pytest.approx(6 / 21, abs=1e-5)
    assert ours["ratio_against"] == pytest.approx(6 / 11, abs=1e-5)
    assert cells["against", "turbo4"]["ratio_f16"] == pytest.approx(11 / 41, abs=1e-5)
    assert (cells["against", "turbo4"]["ratio_against"], cells["ours", "f16"]["ratio_f16"]) == (None, None)


def test_builds_take_turns(site: Site) -> None:
    site.bench("--repeat", "2", "--against", site.folder / "stock")
    assert [name for name, _ in site.asked()] == ["ours", "stock", "stock", "ours"]


def test_every_shape_is_asked_for(site: Site) -> None:
    words = ("--head", "64,576/512", "--group", "1,7", "--tokens", "1,8", "--depth", "64,128", "--threads", "1,2")
    done = site.bench("--kv", "q8_0/turbo4", *words, "--within", "3", "--repeat", "1", "--json")
    assert len(done.document["cells"]) == 2**5
    ((_, given),) = site.asked()
    assert (given["--types"], given["--heads"], given["--rounds"]) == ("q8_0/turbo4", "64,576/512", "3")


def test_shapes_stay_in_the_order_of_the_command(site: Site) -> None:
    cells = site.bench("--head", "64,128,32", "--repeat", "1", "--json", "--against", site.folder / "stock").document
    shown = [(cell["head"], cell["build"]) for cell in cells["cells"] if cell["cache"] == "turbo4"]
    assert shown == [(head, build) for head in ("64", "128", "32") for build in ("ours", "against")]


def test_the_table_names_the_build_only_where_there_are_two(site: Site) -> None:
    assert "build" not in site.bench("--repeat", "1").stdout
    printed = site.bench("--repeat", "1", "--against", site.folder / "stock").stdout
    assert "ours / against" in printed.splitlines()[0]
    assert " against  " in printed


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--head", "64,x"), UsageMistake, "'x' is no size of a head"),
        (("--head", "0"), UsageMistake, "'0' is no size of a head"),
        (("--tokens", "8", "--depth", "4"), UsageMistake, "8 tokens cannot ask a cache of 4"),
        (("--against", "nowhere"), ToolMissing, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    site: Site, words: tuple[str, ...], error: type[Exception], says: str
) -> None:
    done = site.bench(*words, "--json")
    assert done.document["error"]["class"] == error.__name__
    assert says in done.document["error"]["message"]
    assert not (site.folder / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{\"types\": 3}'", "a line that is no timing"),
        ("echo hello", "printed no timing"),
        ("exit 3", "exit status 3"),
    ],
)
def test_a_program_that_measures_nothing_is_told(site: Site, script: str, says: str) -> None:
    program(site.folder / "ours" / PROGRAM, script)
    done = site.bench("--json")
    assert done.document["error"]["class"] == BinaryFailed.__name__
    assert says in done.document["error"]["message"]


def test_a_build_without_the_program_is_told(site: Site) -> None:
    (site.folder / "ours" / PROGRAM).unlink()
    assert site.bench("--json").document["error"]["class"] == ToolMissing.__name__
