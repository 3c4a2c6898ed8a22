"""Fakes of the programs that an evaluation runs: they print what the real ones print, with figures that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_tools import python_program

# KLD of chunk i under (K, V): its base value times (1 + i / 100), less a tenth for each rotated side; ln(PPL / f16) is
# twice the KLD, and of 255 tokens of a chunk 1000 * KLD have another likeliest successor.
BYTES = {"f16": 128, "q8_0": 68, "turbo4": 34, "q4_0": 36}  # of 64 values
KLD = {"f16": 0.0, "q8_0": 0.002, "turbo4": 0.02, "q4_0": 0.06}

COMMON = r"""
import json, math, struct
from pathlib import Path
here = Path(__file__).parent
known = json.loads((here / "behaviour.json").read_text())
words = sys.argv[1:]
if "--help" in words:
    print("allowed values: " + ", ".join(known["kld"]))
    print("" if known["stock"] else "--kv-calibration auto|off|FILE")
    sys.exit(0)
asked = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("-")}
k, v = asked["-ctk"], asked["-ctv"]
rotated = {side: os.environ.get(f"LLAMA_ATTN_ROT_{side}_OVERRIDE") == "1" for side in "KV"}
sides = "".join(side for side in "KV" if rotated[side]).lower() or "off"
name = f"{k}/{v}/{sides}"
how = os.environ["LLAMA_ARG_KV_CALIBRATION"]
calibrated = how not in ("off", "auto") or how == "auto" and k != "f16"
def log(what):
    with (here.parent / "runs.jsonl").open("a") as stream:
        kept = os.environ["LLAMA_CACHE"]
        stream.write(json.dumps({"what": what, "cell": name, "words": words, "pid": os.getpid(), "kept": kept,
                                 "calibration": Path(how).name}) + "\n")
def trouble_with(what):
    return known["trouble"].get(f"{Path(asked['-m']).name}: {what}", known["trouble"].get(what, ""))
at_once = asked.get("-ub", "")
trouble = trouble_with(f"{name} {how}") or trouble_with(f"{name} ubatch {at_once}") or trouble_with(name)
ran = "f16" if trouble == "substitute" else k
print("x I llama_context: flash_attn            = enabled")
digest = f"{sum(name.encode()) if trouble == 'other-hash' else sum(how.encode()):016x}"
if calibrated and trouble != "unmeasured":
    kept = f"measured on 256 tokens in 0.57 s, kept in {os.environ['LLAMA_CACHE']}/kv-calibration/ab.gguf"
    source = known.get("source", kept)
    print(f"x I kv_calibration: on, K {k}, 2 layers, hash {digest}, for 512 positions "
          f"({how if how != 'auto' else source})")
elif not known["stock"]:
    reason = "not measured" if calibrated else "asked for" if how == "off" else "not quantized"
    print(f"x I kv_calibration: off, K {k} ({reason})")
mib = {name: 512 * 2 * bytes / 2**20 for name, bytes in known["bytes"].items()}
print(f"x I llama_kv_cache: size = {mib[ran] + mib[v]:7.2f} MiB (   512 cells,   2 layers,  1/1 seqs), "
      f"K ({ran}): {mib[ran]:7.2f} MiB, V ({v}): {mib[v]:7.2f} MiB")
for side, type in (("k", k), ("v", v)):
    turbo = type.startswith("turbo")
    on = rotated[side.upper()] and type != "f16" and trouble != "blocked"
    print(f"x I llama_kv_cache: turbo_rot_{side}: " + ("on, size 64" if turbo else "off") + f", type {type}")
    print(f"x I llama_kv_cache: attn_rot_{side}: " + ("on, size 64" if on else "off") + f", type {type} (default)")
    print(f"x I llama_kv_cache: attn_rot_{side} = {int(on)}, n_embd_head_k_all = 64", flush=True)
"""

FIGURES = r"""
def fail(trouble):
    if trouble == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
    if trouble in ("interrupt", "terminate"):
        os.kill(os.getppid(), signal.SIGINT if trouble == "interrupt" else signal.SIGTERM)
        time.sleep(30)
    if trouble.startswith("SIG"):
        print("about to crash", flush=True)
        os.kill(os.getpid(), getattr(signal, trouble))
ctx = int(asked["-c"])
scored = ctx - 1 - ctx // 2
def klds_of(chunks):
    base = (known["kld"][k] + known["kld"][v]) / 2 * 0.9 ** sum(rotated.values())
    base *= 1 if calibrated else known["uncalibrated"]
    if at_once == "1":
        base = base * known["decode"] or known.get("decode_f16", 0)
    return [base * (1 + i / 100) for i in range(1, chunks + 1)]
"""

PERPLEXITY = r"""
if "-f" in asked:
    control = "decode-" * (asked["--chunks"] == "1")
    log(control + "base" if "--save-all-logits" in asked else "length")
    fail(trouble_with(control + "base"))
    tokens = len(Path(asked["-f"]).read_text().split())
    if tokens < 2 * ctx:
        print(f"x E perplexity: you need at least {2 * ctx} tokens to evaluate perplexity with a context of {ctx}")
        print(f"x E perplexity: the data file you provided tokenizes to only {tokens} tokens")
        sys.exit(0)
    if "--save-all-logits" not in asked:
        sys.exit(0)
    chunks, vocabulary = min(int(asked["--chunks"]), tokens // ctx), 4
    size = 4 * ctx + (ctx - 1 - ctx // 2) * 2 * (2 * ((vocabulary + 1) // 2) + 4)
    data = struct.pack("<8sIii", b"_logits_", ctx, vocabulary, chunks) + bytes(size * chunks)
    Path(asked["--save-all-logits"]).write_bytes(data[:-1] if trouble_with("base") == "short" else data)
    print("".join(f"[{i + 1}]20.0000," for i in range(chunks)))
    print("x I Final estimate: PPL = 20.0000 +/- 1.00000")
    sys.exit(0)
_, _, _, chunks = struct.unpack("<8sIii", Path(asked["--kl-divergence-base"]).read_bytes()[:20])
log("decode" if chunks == 1 else "cell")
fail(trouble)
time.sleep(known["seconds"])
if trouble == "silent":
    sys.exit(0)
klds = klds_of(chunks)
if trouble == "nan":
    klds[-1] = math.nan
sign = known["trouble"].get("ppl", 1)
def mean(values, n):
    return sum(values[:n]) / n
def other(n):
    return sum(round(1000 * kld) if kld == kld else 0 for kld in klds[:n])
print("\nchunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence        RMS   Same top p")
for n in range(1, chunks + 1):
    m = mean(klds, n)
    top = 100 - 100 * other(n) / (n * scored)
    print(f"{n:4d}    {20 * math.exp(2 * sign * m):9.4f} ± {1:9.4f}    {2 * sign * m:10.5f} ± {0.00001:10.5f}"
          f"    {m:10.5f} ± {0.0001:10.5f}    {1:6.3f} ± {0.1:6.3f} %    {top:6.3f} ± {0.5:6.3f} %")
m, top = mean(klds, chunks), 100 - 100 * other(chunks) / (chunks * scored)
ppl = 20 * math.exp(2 * sign * m)
print(f"\nMean PPL(Q)                   : {ppl:10.6f} ± {1:10.6f}")
print(f"Mean PPL(base)                : {20:10.6f} ± {1:10.6f}")
print(f"Cor(ln(PPL(Q)), ln(PPL(base))): {99:6.2f}%")
print(f"Mean ln(PPL(Q)/PPL(base))     : {2 * sign * m:10.6f} ± {0.00001:10.6f}")
print(f"Mean PPL(Q)/PPL(base)         : {ppl / 20:10.6f} ± {0.0001:10.6f}")
print(f"Mean PPL(Q)-PPL(base)         : {ppl - 20:10.6f} ± {0.0001:10.6f}")
print(f"Mean    KLD: {m:10.6f} ± {0.0001:10.6f}")
for what, unit in (("KLD", ""), ("Δp", "%")):
    ranks = ["Maximum", "99.9%  ", "99.0%  ", "95.0%  ", "90.0%  ", "75.0%  ", "Median ", "25.0%  ", "10.0%  "]
    for rank in [*ranks, " 5.0%  ", " 1.0%  ", " 0.1%  ", "Minimum"]:
        if what == "Δp" or rank.strip() not in ("75.0%", "25.0%"):
            print(f"{rank} {what}: {m:10.6f}{unit}")
print(f"Mean    Δp: {-0.1:6.3f} ± {0.01:5.3f} %")
print(f"RMS Δp    : {1:6.3f} ± {0.1:5.3f} %")
print(f"Same top p: {top:6.3f} ± {0.1:5.3f} %")
"""

# KLD grows by a hundredth of itself from one eighth of the second half to the next, about the mean of the chunk.
DIVERGENCE = r"""
chunks = min(int(asked["--chunks"]), len(Path(asked["-f"]).read_text().split()) // ctx)
log("beside")
fail(trouble)
if trouble == "silent":
    sys.exit(0)
klds = klds_of(chunks)
def estimate(value, error=0.0):
    return {"value": value if value == value else "nan", "error": error}
def shared(m):
    return {"ln_ratio": estimate(2 * m, 0.00001), "kld": estimate(m, 0.0001), "rms_dp": estimate(1, 0.1),
            "same_top": estimate(100 - 100 * m, 0.5)}
def tell(name, fields):
    print(json.dumps({name: fields}, separators=(",", ":")))
mean = lambda n: math.nan if trouble == "nan" else sum(klds[:n]) / n
m = mean(chunks)
for n in range(1, chunks + 1):
    tell("running", {"chunk": n, "ppl": estimate(20 * math.exp(2 * mean(n)), 1), **shared(mean(n))})
tell("position", {"begin": 0, "end": ctx // 2, "tokens": ctx // 2 * chunks, **shared(m / 2)})
for i in range(8):
    begin, end = (ctx // 2 + scored * at // 8 for at in (i, i + 1))
    part = shared(m * (1 + (i - 3.5) / 100))
    tell("position", {"begin": begin, "end": end, "tokens": (end - begin) * chunks, **part})
if trouble == "cut":
    sys.exit(0)
ranks = [0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100]
ppl = 20 * math.exp(2 * m)
tell("divergence", {
    "chunks": chunks if trouble != "fewer" else chunks + 1, "ppl": estimate(ppl, 1), "ppl_base": estimate(20, 1),
    "correlation": 99, "ratio": estimate(ppl / 20), "difference": estimate(ppl - 20),
    "mean": shared(m)["kld"], "mean_dp": estimate(-0.1), **{x: y for x, y in shared(m).items() if x != "kld"},
    "kld": {"points": [[rank, estimate(m)["value"]] for rank in ranks]},
    "dp": {"points": [[rank, estimate(m)["value"]] for rank in sorted([*ranks, 25, 75])]},
} if trouble != "garbled" else {"chunks": "many"})
"""

CLI = r"""
log("probe")
if trouble.startswith("SIG"):
    os.kill(os.getpid(), getattr(signal, trouble))
if trouble == "forgets":
    asked["-p"] = asked["-p"].replace("The", "Two")
answers = {"The": "Paris.", "Two": "Four.", "List": "Red, green, blue.", **known.get("answers", {})}
print("> " + words[words.index("-p") + 1] + "\n\n" + answers[asked["-p"].split()[0]] + "\n")
print("[ Prompt: 1 t/s | Generation: 1 t/s ]")
"""


def eval_programs(folder: Path, **behaviour: object) -> Path:
    """A folder with the fakes. `trouble` maps `k/v/rotation` to what goes wrong with that cell, on one model if its
    file's name and a colon stand before.

    That is a signal's name, `silent`, `nan`, `substitute` (K is f16), `blocked` (no rotation), `forgets` (Paris), or
    `interrupt`, `terminate` or `kill`, which are Ctrl-C, SIGTERM and the end for turbotool. `base` may be `short` or a
    signal's name, and with `ppl` -1 perplexity falls where it should rise. Each cell takes `seconds` at least.
    `answers` replaces what is said to a prompt, known by its first word. With `stock` programs know nothing of
    calibrations; `uncalibrated` is how many times more a cache loses without, `decode` token by token, and `decode_f16`
    is what a cache loses then if that is nothing. A cell may be named with its calibration, `k/v/rotation auto`, and be
    `unmeasured` or have an `other-hash`, or with the tokens that are computed at once, `k/v/rotation ubatch 1`. Runs
    over a single chunk are taken for the control of the decode path, as no test asks for one itself; the trouble of its
    base is `decode-base`.

    With `streams` there is a llama-kv-divergence, too, which may also print a `garbled` result, one that was `cut`, or
    one of `fewer` chunks than it says.
    """
    python_program(folder / "llama-perplexity", COMMON + FIGURES + PERPLEXITY)
    if behaviour.get("streams"):
        python_program(folder / "llama-kv-divergence", COMMON + FIGURES + DIVERGENCE)
    python_program(folder / "llama-cli", COMMON + CLI)
    known = {"kld": KLD, "bytes": BYTES, "trouble": {}, "seconds": 0, "stock": False, "uncalibrated": 1, "decode": 1}
    known |= behaviour
    (folder / "behaviour.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


def eval_runs(folder: Path) -> list[dict[str, Any]]:
    """What the fakes in folders of `folder` were asked, in order."""
    log = folder / "runs.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
