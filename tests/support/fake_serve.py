"""A fake llama-server that prints what the real one prints of itself, and answers as it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_tools import python_program

SERVER = r"""
import http.server, json, threading
from pathlib import Path
here = Path(__file__).parent
known = json.loads((here / "behaviour.json").read_text())
trouble = known["trouble"]
words = sys.argv[1:]
asked = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("-")}
with (here.parent / "servers.jsonl").open("a") as stream:
    env = {name: text for name, text in os.environ.items() if name.startswith(("LLAMA_", "GGML_"))}
    stream.write(json.dumps({"words": words, "pid": os.getpid(), "env": env}) + "\n")
def say(level, text):
    print(f"0.00.010.987 {level} {text}", flush=True)
def fail(*lines):
    for line in lines:
        say("E", line)
    sys.exit(1)
if "--bogus" in words:
    print("error: invalid argument: --bogus", flush=True)
    sys.exit(1)
host, port = asked.get("--host", "127.0.0.1"), int(asked.get("--port", "8080"))
ready = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {"/health": {"status": "ok"}} if ready.is_set() else {}
        found = answers.get(self.path.removeprefix(asked.get("--api-prefix", "")))
        self.send_response(200 if found else 503)
        self.end_headers()
        self.wfile.write(json.dumps(found or {"error": {"message": "Loading model"}}).encode())
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
try:
    server = Server((host, port), Handler)
except OSError:
    fail(f"srv         start: couldn't bind HTTP server socket, hostname: {host}, port: {port}",
         "srv  llama_server: exiting due to HTTP server error")
threading.Thread(target=server.serve_forever, daemon=True).start()
if trouble == "damaged":
    fail("llama_model_load: error loading model: check_tensor_dims: tensor 'blk.0.attn_k.weight' not found",
         "llama_model_load_from_file_impl: failed to load model")
if trouble == "no-memory":
    fail("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1", "srv  load_model: failed")
if trouble in ("SIGSEGV", "SIGKILL"):
    os.kill(os.getpid(), getattr(signal, trouble))
if trouble == "never-ready":
    print("loading", flush=True)
    time.sleep(60)
if trouble == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(known["code"]))
k, v = asked["-ctk"], asked["-ctv"]
quantized = k not in ("f16", "bf16", "f32")
if quantized and trouble != "unmeasured":
    say("I", f"kv_calibration: on, K {k}, 2 layers, hash {1:016x}, for 512 positions "
        "(measured on 256 tokens in 0.57 s, kept in /somewhere/kv-calibration/ab.gguf)")
elif quantized:
    say("I", f"kv_calibration: off, K {k} (not measured)")
if trouble != "terse":
    ran = "q8_0" if trouble == "other-cache" else k
    say("I", f"llama_kv_cache: size =    1.00 MiB (   512 cells,   2 layers,  4/1 seqs), "
        f"K ({ran}):    0.50 MiB, V ({v}):    0.50 MiB")
    for side, type in (("k", k), ("v", v)):
        turned = os.environ.get(f"LLAMA_ATTN_ROT_{side.upper()}_OVERRIDE") == "1"
        turbo = "on, size 64" if type.startswith("turbo") else "off"
        say("I", f"llama_kv_cache: turbo_rot_{side}: {turbo}, type {type}")
        say("I", f"llama_kv_cache: attn_rot_{side}: {'on, size 64' if turned else 'off'}, type {type} (default)")
say("I", f"srv  llama_server: listening on http://{host}:{server.server_port}")
time.sleep(known["loading"])
ready.set()
if trouble == "ends":
    time.sleep(0.5)
    os._exit(3)
while True:
    time.sleep(0.05)
"""


def serve_program(folder: Path, **behaviour: object) -> Path:
    """A folder with the fake. `trouble` is what goes wrong, `loading` seconds until it is ready, `code` its exit code.

    Troubles: damaged, no-memory, SIGSEGV, SIGKILL, never-ready, deaf, unmeasured, other-cache, terse, ends.
    """
    python_program(folder / "llama-server", SERVER)
    known = {"trouble": "", "loading": 0.0, "code": 0, **behaviour}
    (folder / "behaviour.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


def servers(folder: Path) -> list[dict[str, Any]]:
    """How the fakes in folders of `folder` were started, in order."""
    log = folder / "servers.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
