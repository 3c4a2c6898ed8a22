"""`turbotool serve` as it is typed, with a fake llama-server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, ended, private, started, typed
from fake_eval import eval_programs
from fake_serve import serve_program, servers
from processes import is_alive
from published import held
from tiny_gguf import gguf, gguf_of, write

from turbotool.programs.server import free_port

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

MODEL_BYTES = 2 * 64 * 4  # of values; the header comes on top
SECONDS = 60.0  # for what takes one
PLENTY = ("--memory", "4GiB")


@dataclass
class ServeSite:
    """A folder with a model and a fake llama-server, and a turbotool that works in it."""

    folder: Path
    model: Path
    capsys: pytest.CaptureFixture[str]

    def words(self, *words: str | Path) -> list[str]:
        return ["serve", str(self.model), "--bin-dir", str(self.folder / "bin"), *map(str, words)]

    def typed(self, *words: str | Path) -> Done:
        return typed(self.words(*words), self.capsys)

    def started(self, *words: str | Path) -> subprocess.Popen[str]:
        return started(*self.words(*words), variables=private(self.folder))

    @property
    def server(self) -> dict[str, Any]:
        """How the only server was started."""
        (found,) = servers(self.folder)
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[ServeSite]:
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    serve_program(tmp_path / "bin")
    yield ServeSite(tmp_path, write(tmp_path, gguf()), capsys)
    for one in servers(tmp_path):
        assert not is_alive(one["pid"])


def read_until(child: subprocess.Popen[str], text: str) -> str:
    """What it prints on stdout up to the line with the text."""
    assert child.stdout
    found = ""
    while text not in found:
        line = child.stdout.readline()
        assert line, found
        found += line
    return found


def test_a_server_is_started_and_an_address_printed_that_answers(site: ServeSite) -> None:
    port = free_port()
    child = site.started(*PLENTY, "--", "--port", str(port))
    said = read_until(child, "curl")
    assert f"at http://127.0.0.1:{port} (Ctrl-C ends it)" in said
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions -d" in said
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=SECONDS) as answer:
        assert json.loads(answer.read()) == {"status": "ok"}
    os.killpg(child.pid, signal.SIGINT)
    done = ended(child, SECONDS)
    assert (done.code, "Traceback" in done.stderr) == (0, False)
    words = " ".join(site.server["words"])
    assert "-c 2048 -fa on -ctk f16 -ctv f16" in words
    assert words.endswith(f"--port {port}")


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_turbotool_alone_ends_the_server_with_its_own_exit_code(
    site: ServeSite, number: signal.Signals
) -> None:
    serve_program(site.folder / "bin", code=5)
    child = site.started(*PLENTY, "--", "--port", str(free_port()))
    read_until(child, "curl")
    child.send_signal(number)
    assert ended(child, SECONDS).code == 5


def test_a_signal_while_it_loads_leaves_nothing_behind(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="never-ready")
    child = site.started(*PLENTY, "--json", "--", "--port", str(free_port()))
    deadline = time.monotonic() + SECONDS
    while not servers(site.folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    done = ended(child, SECONDS)
    assert (done.code, done.document["error"]["class"]) == (130, "Interrupted")


def test_a_server_that_does_not_listen_is_killed_by_a_second_signal(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="deaf")
    child = site.started(*PLENTY, "--", "--port", str(free_port()))
    read_until(child, "curl")
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert ended(child, SECONDS).code == 128 + signal.SIGKILL


def test_a_server_that_ends_by_itself_ends_the_command_with_its_code(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="ends")
    done = site.typed(*PLENTY, "--", "--port", str(free_port()))
    assert done.code == 3
    assert "llama-server has ended by itself: exit status 3, log " in done.stderr


def test_it_waits_until_the_server_says_that_it_is_ready(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="ends", loading=1.0)
    done = site.typed(*PLENTY, "--json", "--", "--port", str(free_port()))
    document = held(done.stdout)
    assert document["server"]["seconds"] >= 1.0


def test_a_port_in_use_is_a_clear_line_with_one_that_is_free(site: ServeSite) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = site.typed(*PLENTY, "--json", "--", "--port", str(port))
    error = done.document["error"]
    assert (done.code, error["class"]) == (37, "AddressUnavailable")
    assert error["message"] == f"llama-server cannot listen on 127.0.0.1:{port}: address already in use"
    other = int(error["hint"].split()[-1])
    assert other > port
    with socket.socket() as free:
        free.bind(("127.0.0.1", other))


def test_an_address_of_another_machine_is_told_as_that(site: ServeSite) -> None:
    done = site.typed(*PLENTY, "--json", "--", "--host", "192.0.2.1", "--port", str(free_port()))
    assert done.code == 37
    assert "cannot assign requested address" in done.document["error"]["message"]


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        ("damaged", 23, "llama-server cannot load it: check_tensor_dims: tensor 'blk.0.attn_k.weight' not found"),
        ("no-memory", 28, "exit status 1 before it was ready: failed to allocate buffer of size 1"),
        ("SIGSEGV", 28, "llama-server ended with signal SIGSEGV before it was ready"),
        ("other-cache", 26, "K cache type is q8_0, requested f16"),
    ],
)
def test_what_keeps_a_server_from_starting_is_one_clear_line(
    site: ServeSite, trouble: str, code: int, message: str
) -> None:
    serve_program(site.folder / "bin", trouble=trouble)
    done = site.typed(*PLENTY, "--json", "--", "--port", str(free_port()))
    error = done.document["error"]
    assert (done.code, len(error["message"].splitlines())) == (code, 1)
    assert message in error["message"]


def test_a_cache_that_could_not_be_calibrated_is_not_served(site: ServeSite) -> None:
    """What it would lose then is not what the choice rests on."""
    serve_program(site.folder / "bin", trouble="unmeasured")
    done = site.typed(*PLENTY, "--kv", "turbo4", "--json", "--", "--port", str(free_port()))
    assert done.code == 26
    assert "the cache is not calibrated (not measured)" in done.document["error"]["message"]


def test_an_option_that_llama_server_does_not_know_is_told(site: ServeSite) -> None:
    done = site.typed(*PLENTY, "--json", "--", "--bogus")
    assert (done.code, "invalid argument: --bogus" in done.document["error"]["message"]) == (2, True)


@pytest.mark.parametrize(
    ("word", "instead"), [("-c", "--ctx"), ("-ctk", "--kv"), ("-m", "MODEL"), ("-lv", "-v"), ("-np", "--parallel")]
)
def test_an_option_that_is_decided_here_is_refused_with_ours(site: ServeSite, word: str, instead: str) -> None:
    done = site.typed(*PLENTY, "--json", "--", word, "4096")
    assert (done.code, done.document["error"]["hint"]) == (2, f"say it with {instead}")


def test_a_port_that_there_is_not_is_refused(site: ServeSite) -> None:
    """llama-server would listen on another one, and say that it listens there."""
    done = site.typed(*PLENTY, "--json", "--", "--port", "80000")
    assert (done.code, done.document["error"]["message"]) == (2, "there is no port 80000")
    assert servers(site.folder) == []


def test_a_second_model_is_not_taken_for_an_option(site: ServeSite) -> None:
    done = site.typed(*PLENTY, "--json", site.model)
    assert (done.code, done.document["error"]["message"]) == (2, f"unexpected {site.model}")


def test_a_truncated_model_is_refused_before_anything_starts(site: ServeSite) -> None:
    site.model.write_bytes(gguf(with_data=False))
    done = site.typed(*PLENTY, "--json")
    assert (done.code, done.document["error"]["class"]) == (23, "ModelError")
    assert "truncated" in done.document["error"]["message"]
    assert servers(site.folder) == []


def test_print_starts_nothing_and_prints_the_command_alone(site: ServeSite) -> None:
    done = site.typed(*PLENTY, "--print", "--", "--port", "99")
    program = site.folder / "bin" / "llama-server"
    assert done.stdout == (
        f"{program} -m {site.model} -c 2048 -fa on -ctk f16 -ctv f16 --cache-ram {_spare_mib(site)} --port 99\n"
    )
    assert "cache f16: it fits, and nothing is lost" in done.stderr
    assert servers(site.folder) == []
    told = site.typed(*PLENTY, "--print", "--json", "--", "--port", "99").document
    assert (told["command"], told["server"]) == (done.stdout.strip(), None)


def _spare_mib(site: ServeSite) -> int:
    """Of 4 GiB, when model, buffers and an f16 cache of 2048 tokens (2 layers, a head of 64) have theirs."""
    return ((3 << 30) - site.model.stat().st_size - 2048 * 2 * 64 * 2 * 2) >> 20


def test_earlier_prompts_may_take_what_is_left_unless_the_user_says_how_much(site: ServeSite) -> None:
    assert "--cache-ram" not in site.typed("--memory", "16GiB", "--print").stdout
    assert site.typed(*PLENTY, "--print", "--", "-cram", "5").stdout.count("ram") == 1


def test_the_document_holds_the_choice_and_the_server(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="ends")
    port = free_port()
    words = ("--memory", "1GiB", "--reserve", "1023.2MiB", "--json", "--", "--port", str(port))
    found = held(site.typed(*words).stdout)
    assert (found["ctx"], found["trained_ctx"], found["quality"]) == (2048, 2048, 0.02)
    assert found["chosen"]["k"] == found["chosen"]["v"] == "q8_0"
    assert found["chosen"]["source"] == "table"
    assert found["server"]["address"] == f"http://127.0.0.1:{port}"
    assert found["server"]["calibration"] == "measured on 256 tokens, kept in ab.gguf"
    assert found["server"]["confirmed"] is True
    assert [one["allowed"] for one in found["offers"] if one["k"] == "turbo2"] == [False]
    assert "--kv" in found["measure"]


def test_a_log_without_a_cache_leaves_it_unconfirmed(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="terse")
    child = site.started(*PLENTY, "--", "--port", str(free_port()))
    assert "its log does not say which cache is in force" in read_until(child, "curl")
    child.send_signal(signal.SIGTERM)
    assert ended(child, SECONDS).code == 0


def test_v_shows_the_log_of_the_server(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="ends")
    done = site.typed(*PLENTY, "-v", "--", "--port", str(free_port()))
    assert done.stderr.count("listening on") == 1


def test_what_a_key_or_a_prefix_asks_of_curl_is_in_its_line(site: ServeSite) -> None:
    serve_program(site.folder / "bin", trouble="ends")
    words = ("--api-key", "secret", "--api-prefix", "/llm", "--port", str(free_port()))
    said = site.typed(*PLENTY, "--", *words).stdout
    assert '/llm/v1/chat/completions -H "Authorization: Bearer $KEY" -d' in said
    assert "secret" not in said


def test_variables_that_would_undo_the_choice_do_not_reach_the_server(
    site: ServeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_program(site.folder / "bin", trouble="ends")
    for name in ("LLAMA_ATTN_ROT_K_OVERRIDE", "LLAMA_ARG_KV_CALIBRATION", "LLAMA_ARG_N_PARALLEL"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LLAMA_ARG_TOP_K", "7")
    site.typed(*PLENTY, "--", "--port", str(free_port()))
    assert site.server["env"].get("LLAMA_ARG_TOP_K") == "7"
    assert not site.server["env"].keys() & {"LLAMA_ATTN_ROT_K_OVERRIDE", "LLAMA_ARG_KV_CALIBRATION"}
    assert "LLAMA_ARG_N_PARALLEL" not in site.server["env"]


def test_more_tokens_than_trained_for_are_told(site: ServeSite) -> None:
    done = site.typed(*PLENTY, "--ctx", "4096", "--print")
    assert "was trained for 2048 tokens, not 4096" in done.stderr
    assert "-c 4096" in done.stdout


def test_the_logs_of_the_last_servers_are_kept(site: ServeSite) -> None:
    folder = site.folder / "work" / "build" / "serve"
    folder.mkdir(parents=True)
    for number in range(12):
        (folder / f"old-{number:02d}.log").write_text("")
        os.utime(folder / f"old-{number:02d}.log", (number, number))
    serve_program(site.folder / "bin", trouble="ends")
    site.typed(*PLENTY, "--", "--port", str(free_port()))
    left = sorted(path.name for path in folder.iterdir())
    assert left == [f"model-{os.getpid()}.log", *(f"old-{number:02d}.log" for number in range(3, 12))]


def test_no_line_is_wider_than_a_screen(site: ServeSite) -> None:
    """But for paths, which are as long as they are."""
    (site.folder / "m.gguf").write_bytes(gguf_of("qwen2", {"attention.head_count_kv": 1}, ["blk.0.attn_k.bias"]))
    site.model = site.folder / "m.gguf"
    serve_program(site.folder / "bin", trouble="ends")
    done = site.typed("--memory", "1GiB", "--reserve", "1023.2MiB", "--", "--port", str(free_port()))
    wide = [line for line in done.stdout.splitlines() if len(line) > 100 and str(site.folder) not in line]
    assert (done.code, wide) == (3, [])


class TestEvaluated:
    """What `turbotool eval` measured on a model decides before the table."""

    @pytest.fixture
    def evaluated(self, site: ServeSite) -> ServeSite:
        pytest.importorskip("scipy")
        (site.folder / "text.txt").write_text("word " * 5000)
        eval_programs(site.folder / "bin")
        self.evaluate(site)
        return site

    def evaluate(self, site: ServeSite) -> None:
        named = ["eval", str(site.model), "--corpus", str(site.folder / "text.txt")]
        words = [
            "--bin-dir",
            str(site.folder / "bin"),
            "--kv",
            "q8_0/turbo4,turbo4",
            "--rotation",
            "off,v",
            "--chunks",
            "4",
        ]
        assert typed([*named, *words], site.capsys).code == 0

    def offers(self, site: ServeSite, *words: str) -> dict[str, dict[str, Any]]:
        found = site.typed("--memory", "1GiB", "--reserve", "1023.2MiB", "--print", "--json", *words).document
        return {f"{one['k']}/{one['v']}": one for one in [found["chosen"], *found["offers"]]} | {"": found}

    def test_its_figures_stand_in_the_place_of_those_of_the_table(self, evaluated: ServeSite) -> None:
        found = self.offers(evaluated)
        assert found["q8_0/turbo4"]["source"] == found["turbo4/turbo4"]["source"] == "evaluation"
        assert found["q8_0/q8_0"]["source"] == "table"
        assert found["turbo4/turbo4"]["mean_kld"] == pytest.approx(0.02, rel=0.2)

    def test_what_the_choice_rests_on_is_said(self, evaluated: ServeSite) -> None:
        words = ("--memory", "1GiB", "--reserve", "1023.2MiB", "--print", "--kv")
        caches = {
            "turbo4": "that rests on what `turbotool eval` measured on this model",
            "q8_0,turbo4": "what was not measured on this model is from the table of model families: K without a bias",
            "q8_0": "that rests on the table of model families: K without a bias, calibrated\nto measure this model:\n",
        }
        for names, ground in caches.items():
            assert ground in evaluated.typed(*words, names).stderr
        assert "cache turbo4 rotated v (KLD 0.018" in evaluated.typed(*words, "turbo4").stderr

    def test_a_rotation_that_gains_is_served_with_its_variable(self, evaluated: ServeSite) -> None:
        """Which is so with the fake programs: a tenth less loss for a side that is rotated."""
        serve_program(evaluated.folder / "bin", trouble="ends")
        done = evaluated.typed(*PLENTY, "--kv", "turbo4", "--json", "--", "--port", str(free_port()))
        found = held(done.stdout)
        assert (found["chosen"]["rotation"], found["server"]["confirmed"]) == ("v", True)
        assert found["command"].startswith("LLAMA_ATTN_ROT_V_OVERRIDE=1 ")
        assert evaluated.server["env"]["LLAMA_ATTN_ROT_V_OVERRIDE"] == "1"

    def test_an_evaluation_with_other_programs_does_not_count_and_is_named(self, evaluated: ServeSite) -> None:
        (evaluated.folder / "bin" / "libggml.so").write_text("another build")
        found = self.offers(evaluated)
        assert found[""]["note"] == "this model was evaluated with other programs than these, which does not count"
        assert found["q8_0/q8_0"]["source"] == "table"

    def test_another_model_in_its_place_is_not_taken_for_it(self, evaluated: ServeSite) -> None:
        evaluated.model.write_bytes(gguf() + bytes(64))
        found = self.offers(evaluated)
        assert (found[""]["note"], found["q8_0/q8_0"]["source"]) == (None, "table")

    def test_a_calibration_that_was_put_beside_the_model_since_then_is_another_cache(
        self, evaluated: ServeSite
    ) -> None:
        evaluated.model.with_suffix(".kvcal.gguf").write_bytes(b"x")
        found = self.offers(evaluated, "--kv", "q8_0,turbo4")
        assert found["turbo4/turbo4"]["source"] == "table"
        assert (
            found[""]["note"]
            == "this model was evaluated with another calibration than it has now, which does not count"
        )

    def test_a_store_that_is_damaged_is_told_and_the_table_decides(self, evaluated: ServeSite) -> None:
        (evaluated.folder / "work" / "build" / "eval" / "eval.sqlite").write_text("no database" * 99)
        found = self.offers(evaluated)
        assert found[""]["note"].startswith("evaluations cannot be read: ")
        assert found["q8_0/q8_0"]["source"] == "table"
