"""`turbotool python-env` as it is typed, with fake bindings in a real virtual environment."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import Done, private, typed
from fake_bindings import BINDINGS, OTHER_TREE, TREE, VERSION, add_bindings, make_build, make_environment, make_sources

from turbotool.bindings import environment, run
from turbotool.bindings.environment import Environment
from turbotool.bindings.releases import FITTING, BindingsRelease
from turbotool.layout import find_layout
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="its folders are those of other systems")


@dataclass
class PythonSite:
    """A build, the headers of its tree, and turbotool in a work folder of its own."""

    folder: Path
    bin_dir: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def environment(self) -> Path:
        return self.folder / "env"

    def typed(self, *words: str | Path) -> Done:
        return typed(["python-env", self.environment, "--bin-dir", self.bin_dir, *words], self.capsys)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> PythonSite:
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    make_sources(find_layout().tree)
    monkeypatch.setattr(run, "ensure_applied", lambda _: SimpleNamespace(tree=TREE))
    return PythonSite(tmp_path, make_build(tmp_path / "build"), capsys)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Versions that were installed, into environments in which they were not, without asking pip."""
    versions = []

    def install(_: Session, found: Environment, release: BindingsRelease) -> None:
        versions.append(release.version)
        for path in list(found.packages.glob("llama_cpp*")):
            path.rename(found.folder / path.name)
        add_bindings(found.packages, version=release.version)

    monkeypatch.setattr(environment, "install", install)
    return versions


def test_an_environment_that_is_there_is_wired_to_the_build(site: PythonSite) -> None:
    make_environment(site.environment)
    done = site.typed("--json")
    assert done.code == 0, done.stderr
    told = done.document
    assert (told["bindings"], told["made"], told["installed"]) == (VERSION, False, False)
    assert (told["bin_dir"], told["tree"], told["calibration"]) == (str(site.bin_dir), TREE, "auto")
    assert (told["structs"], told["functions"], told["constants"]) == (3, 2, 1)
    assert told["added"] == {"llama_context_params": ["moe"]}
    assert told["unchecked"] == ["llama_union"]
    code = "import llama_cpp; print(llama_cpp.llama_cpp.libraries)"
    found = subprocess.run([told["python"], "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(site.bin_dir)


def test_people_are_told_how_it_is_used(site: PythonSite) -> None:
    make_environment(site.environment)
    told = site.typed().stdout
    assert f"llama-cpp-python {VERSION}" in told
    assert "llama_context_params was given moe" in told
    assert "not compared: llama_union" in told
    assert '**kv("turbo4"))' in told
    assert str(site.environment / "bin" / "python") in told


def test_what_leads_python_or_the_bindings_elsewhere_is_left_out(
    site: PythonSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_environment(site.environment)
    stranger = site.folder / "stranger" / "llama_cpp"
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("raise ImportError('a stranger')")
    monkeypatch.setenv("PYTHONPATH", str(stranger.parent))
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(stranger))
    assert site.typed("--json").document["ok"]


def test_an_environment_is_made_where_there_is_none(site: PythonSite, installed: list[str]) -> None:
    told = site.typed("--json").document
    assert (told["made"], told["installed"], told["bindings"]) == (True, True, FITTING.version)
    assert installed == [FITTING.version]
    again = site.typed("--json").document
    assert (again["made"], again["installed"]) == (False, False)


def test_other_bindings_are_replaced_only_if_that_is_asked_for(site: PythonSite, installed: list[str]) -> None:
    make_environment(site.environment)
    assert site.typed("--json").document["bindings"] == VERSION
    assert installed == []
    assert site.typed("--json", "--replace").document["bindings"] == FITTING.version
    assert site.typed("--json", "--replace").document["installed"] is False
    assert installed == [FITTING.version]


def test_bindings_that_do_not_fit_are_refused_with_what_can_be_done(site: PythonSite) -> None:
    make_environment(site.environment, BINDINGS.replace('("samplers",', '("other",'))
    done = site.typed("--json")
    assert done.code == 38
    error = done.document["error"]
    assert "llama_context_params.other is pointer there, unknown in llama.h" in error["message"]
    assert "\n" not in error["message"]
    assert (
        error["hint"]
        == f"turbotool python-env {site.environment} --replace, which installs llama-cpp-python {FITTING.version}"
    )


def test_where_the_known_release_does_not_fit_another_one_is_to_be_tried(site: PythonSite) -> None:
    make_environment(site.environment, BINDINGS.replace('("samplers",', '("other",'), FITTING.version)
    hint = site.typed("--json").document["error"]["hint"]
    assert hint.startswith("CMAKE_ARGS=-DLLAMA_BUILD=OFF ")
    assert "pip install llama-cpp-python==VERSION" in hint


def test_a_folder_with_other_things_is_left_alone(site: PythonSite) -> None:
    site.environment.mkdir()
    (site.environment / "mine.txt").write_text("mine")
    assert site.typed().code == 2
    assert [path.name for path in site.environment.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("record", "told"), [(json.dumps({"tree": OTHER_TREE}), OTHER_TREE), ("{}", "no build.json beside their folder")]
)
def test_libraries_whose_llama_h_is_not_known_are_refused(site: PythonSite, record: str, told: str) -> None:
    (site.bin_dir.parent / "build.json").write_text(record)
    done = site.typed()
    assert done.code == 17
    assert told in done.stderr
    assert not site.environment.exists()


def test_a_folder_without_the_library_is_refused(site: PythonSite) -> None:
    (site.bin_dir / "libllama.so").unlink()
    done = site.typed()
    assert done.code == 17
    assert "has no libllama" in done.stderr


def test_a_type_without_a_number_is_missed(site: PythonSite) -> None:
    make_sources(find_layout().tree, ["f16"])
    done = site.typed()
    assert done.code == 12
    assert "no number for" in done.stderr


def test_a_pin_that_nobody_has_tried_is_warned_of(site: PythonSite, monkeypatch: pytest.MonkeyPatch) -> None:
    make_environment(site.environment)
    assert "warning" not in site.typed().stderr
    monkeypatch.setattr(run, "read_lock", lambda _: SimpleNamespace(upstream=SimpleNamespace(known_as="b1")))
    assert f"was tried with {FITTING.pin}, and the pin is b1" in site.typed().stderr


def test_the_known_release_was_tried_with_the_pin() -> None:
    # After a bump: run tests/integration/test_python_env.py, then correct `releases`, or take a release that fits.
    assert read_lock(find_layout()).upstream.known_as == FITTING.pin
