"""Fake programs for the checks of `turbotool verify`: they obey the rules that the real ones obey, but for one trouble.

They hold a cache of a model with the shape of SmolLM2, log it as the real ones do, and follow the rotation's gate. Each
trouble is a word that breaks one rule; TROUBLES says which.
"""

from __future__ import annotations

import json
from pathlib import Path

from fake_tools import program, python_program

from turbotool.kv.cachetype import BLOCKS
from turbotool.programs.binaries import TESTS, TOOLS

TROUBLES = {
    "leaks": "an override of K changes V as well, in the logits and not in the log",
    "log-only": "an override changes the log and not the logits",
    "unlocked": "the lock-out holds in the log and not in the logits",
    "f16-rotates": "an override changes the logits of a float side",
    "k-needs-v": "an override of K does nothing to the logits where V is f16",
    "any-value": "a knob takes any value",
    "nameless-error": "an error does not name what is wrong",
    "crashes": "a knob with a wrong value ends in a signal",
    "silent-gate": "the log does not say whether upstream's rotation is in force",
    "rotates": "upstream's rotation is in force at any head size",
    "other-reason": "the log gives another reason for a rotation that is off",
    "pads": "a turbo3 cache takes as many bytes as a turbo4 cache",
    "layers": "the log names a cache of other layers",
    "substitutes": "turbo4 runs as q8_0",
    "aborts": "a model with random weights ends in a signal",
    "takes-odd": "a turbo type takes a head size that its blocks do not divide",
    "unrotated": "the rotations are not in force in a model with random weights",
    "forgets": "a restored slot has fewer tokens",
    "evaluates": "the tokens of a restored slot are not used",
    "drifts": "what follows a restored slot has other probabilities",
    "stops": "a completion ends early",
    "no-copy": "the log does not say that a sequence was copied",
    "one-slot": "both completions are in one slot",
    "copy-drifts": "a copy goes on with other tokens",
    "copy-rounds": "a copy has other probabilities",
}

COMMON = r"""
import json, re
from pathlib import Path
here = Path(__file__).parent
known = json.loads((here / "behaviour.json").read_text())
trouble, name, words = known["trouble"], Path(__file__).stem, sys.argv[1:]
if "--version" in words:
    print(f"version: 1 (commit 0c1e57098-turbo-{known['tree'][:9]})")
    sys.exit(0)
asked = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("-")}
k, v, ctx = asked.get("-ctk", "f16"), asked.get("-ctv", "f16"), int(asked.get("-c", 512))
knobs = {side: os.environ.get(f"LLAMA_ATTN_ROT_{side}_OVERRIDE", "0") for side in "KV"}
for side, value in knobs.items():
    if value not in ("0", "1") and trouble == "crashes":
        os.kill(os.getpid(), signal.SIGABRT)
    if value not in ("0", "1") and trouble != "any-value":
        sys.exit("an error" if trouble == "nameless-error" else f"LLAMA_ATTN_ROT_{side}_OVERRIDE: bad value")
odd, random = "odd-heads" in asked["-m"], re.search("odd-heads|fused-qkv", asked["-m"])
head, disabled = 96 if odd else 64, os.environ.get("LLAMA_ATTN_ROT_DISABLE") == "1"
if random and trouble == "aborts":
    os.kill(os.getpid(), signal.SIGABRT)
if odd and k.startswith("turbo") and trouble != "takes-odd":
    print("an error" if trouble == "nameless-error" else f"block size 64 does not divide n_embd_head_k={head}")
    sys.exit(1)
if trouble == "substitutes":
    k, v = k.replace("turbo4", "q8_0"), v.replace("turbo4", "q8_0")
floats = ("f32", "f16", "bf16")
def gate(side, type):
    variable = f"LLAMA_ATTN_ROT_{side}_OVERRIDE"
    if knobs[side] != "1":
        return False, "default"
    if disabled:
        return False, "blocked by LLAMA_ATTN_ROT_DISABLE"
    if head % 64 and trouble != "rotates":
        return False, f"{variable} ignored: head size {head} is not a multiple of 64"
    if type in floats:
        return False, f"{variable} ignored: cache type {type} is not quantized"
    return not (random and trouble == "unrotated"), variable
types = {"K": k, "V": v}
on = {side: gate(side, type) for side, type in types.items()}
"""

LOG = r"""
cells, layers = -(-ctx // 256) * 256, known["layers"] + (trouble == "layers")
def mib(type):
    values, width = known["blocks"]["turbo4" if trouble == "pads" and type == "turbo3" else type]
    return cells * known["layers"] * known["heads"] * -(-head // values) * width / 2**20
sides, per = mib(k) + mib(v), {side: mib(type) for side, type in types.items()}
print(f"x I llama_context: n_ctx                 = {ctx}\nx I llama_context: flash_attn            = enabled")
print(f"x I llama_kv_cache:        CPU KV buffer size = {sides:8.2f} MiB")
print(f"x I llama_kv_cache: size = {sides:7.2f} MiB ({cells:6d} cells, {layers:3d} layers,  1/1 seqs), "
      f"K ({k}): {per['K']:7.2f} MiB, V ({v}): {per['V']:7.2f} MiB")
for side, type in types.items():
    turbo, low = type.startswith("turbo"), side.lower()
    print(f"x I llama_kv_cache: turbo_rot_{low}: " + ("on, size 64" if turbo else "off") + f", type {type}")
    reason = "a whim" if trouble == "other-reason" and not on[side][0] else on[side][1]
    if trouble != "silent-gate":
        state = "on, size 64" if on[side][0] else "off"
        print(f"x I llama_kv_cache: attn_rot_{low}: {state}, type {type} ({reason})")
sys.stdout.flush()
"""

PERPLEXITY = r"""
rotated = {side: on[side][0] for side in "KV"}
if trouble == "leaks" and rotated["K"]:
    rotated["V"] = True
if trouble == "log-only":
    rotated = dict.fromkeys("KV", False)
if trouble == "unlocked":
    rotated = {side: knobs[side] == "1" and type not in floats for side, type in types.items()}
if trouble == "f16-rotates":
    rotated = {side: knobs[side] == "1" and not disabled for side in "KV"}
if trouble == "k-needs-v" and v in floats:
    rotated["K"] = False
Path(asked["--save-all-logits"]).write_text(f"{k} {v} {rotated}")
print("".join(f"[{i + 1}]20.0000," for i in range(int(asked["--chunks"]))))
print("x I Final estimate: PPL = 20.0000 +/- 1.00000")
"""

COMPLETION = r"""
print("x I generate: n_ctx = 512\n five.\nx I common_perf_print: eval time = 1 ms / 2 runs")
"""

CLI = r"""
answers = {"The": "Paris.", "Two": "Four.", "List": "Red, green, blue."}
print("> " + asked["-p"] + "\n\n" + answers[asked["-p"].split()[0]] + "\n\n[ Prompt: 1 t/s | Generation: 1 t/s ]")
"""

SERVER = r"""
import http.server
restored = erased = False
def tokens(n, moved, rounded):
    return [{"id": 7 * i + moved, "logprob": -0.5 - rounded} for i in range(n - (trouble == "stops"))]
def continuation(n, slot, moved=0, rounded=0.0):
    cached = 0 if trouble == "evaluates" else 18
    return {"content": "x", "completion_probabilities": tokens(n, moved, rounded), "timings": {"cache_n": cached},
            "id_slot": slot}
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, document):
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(document).encode())
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        global restored
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/slots"):
            restored = restored or "restore" in self.path
            return self.answer({"n_saved": 18, "n_restored": 9 if trouble == "forgets" else 18})
        n, copies = body["n_predict"], body.get("n_cmpl", 0)
        if not copies:
            return self.answer(continuation(n, body["id_slot"], rounded=restored and trouble == "drifts"))
        if trouble != "no-copy":
            print("copying state to child", flush=True)
        drifts, rounds = trouble == "copy-drifts", trouble == "copy-rounds"
        self.answer([continuation(n, 0 if trouble == "one-slot" else i, i * drifts, i * rounds) for i in range(copies)])
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(asked["--port"])), Handler).serve_forever()
"""

BODIES = {
    "llama-perplexity": PERPLEXITY,
    "llama-completion": COMPLETION,
    "llama-cli": CLI,
    "llama-server": SERVER,
    "llama-bench": "",
    "llama-kv-calibrate": "",
    "llama-kv-divergence": "",
}


def verify_programs(folder: Path, trouble: str = "", *, tree: str = "", layers: int = 30, heads: int = 3) -> Path:
    """A folder with every program that `verify` starts; those that test upstream's own code do nothing."""
    assert trouble in {"", *TROUBLES}
    for name in TOOLS:
        python_program(folder / name, COMMON + LOG + BODIES[name])
    for name in TESTS:
        program(folder / name, "exit 0\n")
    known = {"trouble": trouble, "tree": tree, "layers": layers, "heads": heads, "blocks": BLOCKS}
    (folder / "behaviour.json").write_text(json.dumps(known), encoding="utf-8")
    return folder
