"""`turbotool python-env` with the real llama-cpp-python: it fits, answers as programs do, and refuses what does not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import document
from installer.sources import WheelFile

from turbotool.bindings.carried import CarriedPackage
from turbotool.bindings.environment import python_in, variables
from turbotool.bindings.releases import FITTING
from turbotool.build.backends import find_backend
from turbotool.build.platforms import find_platform
from turbotool.build.request import BuildRequest
from turbotool.inputs.default_model import choose_model
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import BLOCKS, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration
from turbotool.layout import find_layout
from turbotool.programs.binaries import Binaries
from turbotool.programs.completion import GREEDY, parse_completion
from turbotool.programs.runner import Runner
from turbotool.release import package, sharedlibs, wheel
from turbotool.release.parts import PARTS
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.slow

SECONDS = 900.0  # of anything; the machine may be busy
PROMPT, TOKENS, CTX = "The capital of France is", 24, 512
ANSWER = f"""
import json, sys
from llama_cpp import Llama
from turbotool_llama import kv, report
llama = Llama(sys.argv[1], n_ctx={CTX}, n_threads=1, verbose=False, logits_all=True, **kv(sys.argv[2]))
answer = llama({PROMPT!r}, max_tokens={TOKENS}, temperature=0.0, repeat_penalty=1.0, logprobs=1)["choices"][0]
probabilities = [float(one) for one in answer["logprobs"]["token_logprobs"]]
print(json.dumps([answer["text"], report()["calibration"], probabilities]))
"""
BY_NUMBER = ANSWER.replace("**kv(sys.argv[2])", "type_k=TURBO4, type_v=TURBO4, flash_attn=True").replace(
    "kv,", "TURBO4,"
)
EPOCH = 315532800


@dataclass(frozen=True)
class Answer:
    """What the model says, with what K is calibrated, and each token's logarithmic probability."""

    text: str
    calibration: str
    log_probabilities: tuple[float, ...]


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

    def answer(self, cache: str, env: Mapping[str, str] | None = None, code: str = ANSWER) -> Answer:
        done = self.run(code, self.model.path, cache, env=env)
        assert done.returncode == 0, done.stderr[-4000:]
        text, calibration, log_probabilities = json.loads(done.stdout.splitlines()[-1])
        return Answer(text.strip(), calibration, tuple(log_probabilities))


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
    answer = real.answer(cache)
    assert answer.calibration == "auto"
    assert answer.text == completed(built, real.model, tmp_path, cache, AUTO)


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
    answer = real.answer("turbo4", {"LLAMA_ARG_KV_CALIBRATION": "off"})
    assert answer.calibration == "off"
    assert answer.text == completed(built, real.model, tmp_path, "turbo4", UNCALIBRATED)
    # the words may be the same ones, how probable they are is not
    assert answer.log_probabilities[0] != real.answer("turbo4").log_probabilities[0]


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


# The wheel, made of the same build, in an environment that has the same bindings


@contextmanager
def of_this_machine() -> Iterator[None]:
    """What is packed may be a build for this machine: with OpenMP and OpenSSL, and the names of its folders."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(package, "refuse_paths", lambda *_: None)
        patched.setattr(wheel, "refuse_paths", lambda *_: None)
        more = {system: rf"{pattern}|.*(gomp|omp|ssl|crypto).*" for system, pattern in sharedlibs.SYSTEM.items()}
        patched.setattr(sharedlibs, "SYSTEM", more)
        yield


@pytest.fixture(scope="module")
def wheel_file(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout, request = find_layout(), BuildRequest(find_backend(built["backend"]))
    with of_this_machine():
        packed = package.gather(layout, request, find_platform(None), "", EPOCH)
        made = wheel.gather(layout, packed, CarriedPackage(), "")
    return made.write(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(real: RealEnvironment, wheel_file: Path) -> RealEnvironment:
    """A new environment with the wheel; its llama-cpp-python is the one that is installed in the other."""
    folder = wheel_file.parent / "env"
    venv.create(folder, with_pip=False)
    (bindings,) = Path(real.told["folder"]).glob("lib/python*/site-packages")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "bindings.pth").write_text(f"{bindings}\n")
    python = str(python_in(folder))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel_file)], check=True, timeout=SECONDS)
    return RealEnvironment({"python": python, "folder": str(folder)}, real.model)


def test_others_read_the_wheel_and_see_the_symbols_that_its_name_tells(wheel_file: Path) -> None:
    with WheelFile.open(wheel_file) as archive:
        archive.validate_record()
    if sys.platform == "linux":
        show = [sys.executable, "-m", "auditwheel", "show", str(wheel_file)]
        done = subprocess.run(show, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        tag = wheel_file.stem.rpartition("-")[2]
        assert f'constrains the platform tag to "{tag}"' in " ".join(done.stdout.split())


def test_the_libraries_of_the_wheel_answer_as_llama_completion_does(
    installed: RealEnvironment, built: dict[str, Any], tmp_path: Path
) -> None:
    assert "TURBO4, report" in BY_NUMBER
    answer = installed.answer("turbo4", code=BY_NUMBER)
    assert answer.calibration == "auto"
    assert answer.text == completed(built, installed.model, tmp_path, "turbo4", AUTO)


def test_the_wheel_loads_its_own_libraries_and_the_same_layouts_fit(
    installed: RealEnvironment, real: RealEnvironment
) -> None:
    code = "import json, llama_cpp, turbotool_llama\n"
    code += "print(json.dumps([llama_cpp.llama_cpp._lib._name, turbotool_llama.report()]))"
    done = installed.run(code)
    assert done.returncode == 0, done.stderr
    library, found = json.loads(done.stdout)
    assert Path(library).is_relative_to(installed.told["folder"])
    assert Path(library).parts[-3:-1] == ("turbotool_llama", "lib")
    assert found["added"] == real.told["added"]


def test_nothing_of_the_parts_that_only_programs_have_is_in_the_libraries(built: dict[str, Any]) -> None:
    folder, tree = Path(built["bin_dir"]).parent, find_layout().tree
    ninja = shutil.which("ninja", path=sysconfig.get_path("scripts")) or "ninja"
    said = subprocess.run([ninja, "-C", folder, "-t", "deps"], check=True, capture_output=True, text=True).stdout
    objects = [block.splitlines() for block in said.split("\n\n") if block.startswith(("src/", "ggml/src/"))]
    sources = {Path(folder, line.strip()).resolve() for lines in objects for line in lines[1:]}
    assert tree / "include" / "llama.h" in sources
    for part in PARTS:
        if not part.library:
            inside = tree / "vendor" / part.folder if part.folder else tree / part.text
            assert not [path for path in sources if inside in (path, *path.parents)], part.name
