"""What a wheel carries, and how it is tried: installed in a new environment, and imported there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from fake_bindings import TREE, make_environment, make_sources

from turbotool.bindings import environment
from turbotool.bindings.carried import CarriedPackage
from turbotool.bindings.environment import Environment
from turbotool.bindings.releases import FITTING, BindingsRelease
from turbotool.errors import BindingsDiffer
from turbotool.layout import Layout
from turbotool.system.files import write_file
from turbotool.system.output import Output
from turbotool.system.session import Session

CARRIED = CarriedPackage()


def test_its_package_is_told_that_libraries_lie_below_it(tmp_path: Path) -> None:
    files = CARRIED.files(TREE, make_sources(tmp_path))
    build = json.loads(files["turbotool_llama/build.json"])
    assert (build["bin_dir"], build["tree"]) == ("lib", TREE)
    assert build["bindings"] == f"llama-cpp-python=={FITTING.version}" == CARRIED.requirement
    assert "turbotool_llama.pth" in files


def test_its_page_says_what_there_is() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", CARRIED.description, re.MULTILINE | re.DOTALL)
    compile(code, "wheel.md", "exec")
    assert f"[{CARRIED.extra}]" in CARRIED.description
    assert CARRIED.name.replace("_", "-") in CARRIED.description


@pytest.mark.skipif(os.name == "nt", reason="its folders are those of other systems")
@pytest.mark.parametrize("type_k", ["int32", "int64"])
def test_bindings_that_do_not_fit_the_wheel_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_k: str
) -> None:
    sources = make_sources(tmp_path / "sources")
    header = sources / "include" / "llama.h"
    header.write_text(header.read_text().replace("enum ggml_type type_k", f"{type_k}_t type_k"))
    wheel, asked = tmp_path / "x.whl", []

    def make(_: Session, folder: Path) -> bool:
        make_environment(folder)
        return True

    def install_bindings(_: Session, found: Environment, release: BindingsRelease) -> None:
        asked.append(release.version)

    def install_wheel(_: Session, found: Environment, archive: Path, extra: str) -> None:
        asked.append(f"{archive.name}[{extra}]")
        for name, data in CARRIED.files(TREE, sources).items():
            write_file(found.packages / name, data)
        (found.packages / "turbotool_llama" / "lib").mkdir()

    for name, function in (("make", make), ("install", install_bindings), ("install_wheel", install_wheel)):
        monkeypatch.setattr(environment, name, function)
    session = Session(Layout(tmp_path, tmp_path / "work", tmp_path / "cache"), Output(quiet=True))
    if type_k == "int32":
        CARRIED.try_out(session, wheel)
    else:
        with pytest.raises(BindingsDiffer, match=r"x\.whl: .*type_k is int32 there, int64 in llama\.h") as caught:
            CARRIED.try_out(session, wheel)
        assert "\n" not in caught.value.message
        assert "releases.py" in str(caught.value.hint)
    assert asked == [FITTING.version, "x.whl[llama-cpp-python]"]


@pytest.mark.skipif(os.name == "nt", reason="the fake Python is a script")
def test_pip_is_told_to_install_the_wheel_with_its_extra(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    python.chmod(0o755)
    session = Session(Layout(tmp_path, tmp_path / "work", tmp_path / "cache"), Output(quiet=True))
    environment.install_wheel(session, Environment(tmp_path, tmp_path, "3", ""), tmp_path / "x.whl", "more")
    told = (tmp_path / "told").read_text().split()
    assert told[-1] == f"{tmp_path / 'x.whl'}[more]"
    assert told[:3] == ["-m", "pip", "install"]
