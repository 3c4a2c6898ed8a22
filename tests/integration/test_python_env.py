"""`turbotool python-env` with the real llama-cpp-python: it fits, answers as programs do, and refuses what does not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import document

from turbotool.bindings.environment import variables
from turbotool.bindings.releases import FITTING
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import BLOCKS, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration
from turbotool.layout import find_layout
from turbotool.programs.binaries import Binaries
from turbotool.programs.completion import GREEDY, parse_completion
from turbotool.programs.runner import Runner
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.slow

SECONDS = 900.0  # of anything; the machine may be busy
PROMPT, TOKENS, CTX = "The capital of France is", 24, 512
ANSWER = f"""
import json, sys
from llama_cpp import Llama
from turbotool_llama import kv, report
llama = Llama(sys.argv[1], n_ctx={CTX}, n_threads=1, verbose=False, **kv(sys.argv[2]))
answer = llama({PROMPT!r}, max_tokens={TOKENS}, temperature=0.0, repeat_penalty=1.0)
print(json.dumps([answer["choices"][0]["text"], report()["calibration"]]))
"""


@dataclass(frozen=True)
class RealEnvironment:
    """What `turbotool python-env` made, and the model that is asked there."""

    told: Mapping[str, Any]
    model: Model

    def run(
        self, code: str, *words: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [self.told["python"], "-c", code, *map(str, words)]
        return subprocess.run(command, env=variables(env), capture_output=True, text=True, check=False, timeout=SECONDS)

    def answer(self, cache: str, env: Mapping[str, str] | None = None) -> tuple[str, str]:
        """What the model says, and with what K is calibrated."""
        done = self.run(ANSWER, self.model.path, cache, env=env)
        assert done.returncode == 0, done.stderr[-4000:]
        text, calibration = json.loads(done.stdout.splitlines()[-1])
        return text.strip(), calibration


@pytest.fixture(scope="module")
def real(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> RealEnvironment:
    folder = tmp_path_factory.mktemp("python") / "env"
    told = document("python-env", folder, "--bin-dir", built["bin_dir"], timeout=SECONDS)
    return RealEnvironment(told, choose_model(Session(find_layout(), Output(quiet=True)), None))


def completed(built: dict[str, Any], model: Model, work: Path, cache: str, calibration: Calibration) -> str:
    """What llama-completion says to the same question, without its word for an end that the model chose."""
    runner = Runner(Binaries(Path(built["bin_dir"])), work, threads=1)
    words = ("-c", str(CTX), "-n", str(TOKENS), "-no-cnv", "--no-display-prompt", "-p", PROMPT, *GREEDY)
    done = runner.cached("llama-completion", model, CachePair.parse(cache), words, calibration=calibration)
    return parse_completion(done.done.output).removesuffix(" [end of text]")


def test_the_known_release_fits_the_pin_as_it_is_known_to(real: RealEnvironment) -> None:
    told = real.told
    assert (told["bindings"], told["made"], told["installed"]) == (FITTING.version, True, True)
    assert {name: tuple(fields) for name, fields in told["added"].items()} == FITTING.added
    assert min(told["structs"], told["functions"], told["constants"]) > 0


def test_what_is_not_compared_is_known(real: RealEnvironment) -> None:
    assert real.told["unchecked"] == ["llama_model_kv_override"]  # an array and a union


def test_nothing_was_compiled(real: RealEnvironment) -> None:
    (bindings,) = Path(real.told["folder"]).glob("lib/python*/site-packages/llama_cpp")
    assert [path for path in bindings.rglob("*") if ".so" in path.name or path.suffix in (".dylib", ".dll")] == []


@pytest.mark.parametrize("cache", ["turbo4", "q8_0/turbo4", "f16"])
def test_a_calibrated_cache_answers_as_llama_completion_does(
    real: RealEnvironment, built: dict[str, Any], tmp_path: Path, cache: str
) -> None:
    answer, calibration = real.answer(cache)
    assert calibration == "auto"
    assert answer == completed(built, real.model, tmp_path, cache, AUTO)


def test_the_program_of_the_guide_runs_as_it_stands(real: RealEnvironment) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "python-bindings.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "model.gguf" in code
    done = real.run(code.replace("model.gguf", str(real.model.path)))
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Paris" in done.stdout


def test_without_calibration_the_answer_is_the_one_of_llama_completion_too(
    real: RealEnvironment, built: dict[str, Any], tmp_path: Path
) -> None:
    answer, calibration = real.answer("turbo4", {"LLAMA_ARG_KV_CALIBRATION": "off"})
    assert calibration == "off"
    assert answer == completed(built, real.model, tmp_path, "turbo4", UNCALIBRATED)
    assert answer != real.answer("turbo4")[0]  # or else the two tests tell nothing of calibrations


def test_each_cache_type_has_the_number_that_the_library_gives_its_name(real: RealEnvironment) -> None:
    code = "import ctypes, json, llama_cpp, turbotool_llama, os\n"
    code += "ggml = ctypes.CDLL(os.path.join(os.environ['LLAMA_CPP_LIB_PATH'], next(name for name in os.listdir("
    code += "os.environ['LLAMA_CPP_LIB_PATH']) if name.startswith('libggml-base.'))))\n"
    code += "ggml.ggml_type_name.restype = ctypes.c_char_p\n"
    code += "print(json.dumps({name: ggml.ggml_type_name(turbotool_llama.number(name)).decode() for name in "
    code += f"{list(BLOCKS)!r}}}))"
    done = real.run(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: name for name in BLOCKS}


def rewired(real: RealEnvironment, struct: str, fields: list[list[str]]) -> subprocess.CompletedProcess[str]:
    """`import llama_cpp` in an environment that is told another layout of a struct."""
    (file,) = Path(real.told["folder"]).glob("lib/python*/site-packages/turbotool_llama/build.json")
    kept = file.read_bytes()
    build = json.loads(kept)
    build["structs"][struct] = fields
    file.write_text(json.dumps(build))
    try:
        return real.run("import llama_cpp")
    finally:
        file.write_bytes(kept)


def layout(real: RealEnvironment, struct: str) -> list[list[str]]:
    (file,) = Path(real.told["folder"]).glob("lib/python*/site-packages/turbotool_llama/build.json")
    fields: list[list[str]] = json.loads(file.read_bytes())["structs"][struct]
    return fields


def test_a_layout_that_the_library_does_not_have_is_refused_by_its_own_defaults(real: RealEnvironment) -> None:
    # the layout that the bindings have by themselves
    fields = [one for one in layout(real, "llama_context_params") if one[0] != "moe_cache_size"]
    done = rewired(real, "llama_context_params", fields)
    assert done.returncode == 1
    assert "llama_context_default_params() has samplers = 0x" in done.stderr.splitlines()[-1]


def test_a_llama_h_without_a_field_of_the_bindings_is_refused(real: RealEnvironment) -> None:
    fields = [one for one in layout(real, "llama_model_params") if one[0] != "load_mtp"]
    done = rewired(real, "llama_model_params", fields)
    assert done.returncode == 1
    assert "llama_model_params.load_mtp is bool there, unknown in llama.h" in done.stderr.splitlines()[-1]


def test_libraries_of_another_tree_are_refused(real: RealEnvironment, tmp_path: Path) -> None:
    other = tmp_path / "other" / "bin"
    other.mkdir(parents=True)
    (other.parent / "build.json").write_text(json.dumps({"tree": "0" * 40}))
    done = real.run("import llama_cpp", env={"LLAMA_CPP_LIB_PATH": str(other)})
    assert done.returncode == 1
    assert f"are of tree {'0' * 40}" in done.stderr.splitlines()[-1]


def test_an_environment_that_is_there_is_done_at_once(real: RealEnvironment, built: dict[str, Any]) -> None:
    again = document("python-env", real.told["folder"], "--bin-dir", built["bin_dir"], timeout=SECONDS)
    assert (again["made"], again["installed"]) == (False, False)
    assert again["added"] == real.told["added"]
