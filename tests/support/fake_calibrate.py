"""A fake llama-kv-calibrate, and a llama-perplexity whose KLD a calibration changes by a factor that is known."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from fake_eval import BYTES, COMMON, FIGURES, KLD, PERPLEXITY
from fake_tools import python_program
from tiny_gguf import key_text

FACTOR = 0.4  # of the KLD with a calibration
GAINS = [2.0, 8.0]  # of the two heads of every layer
HEAD = 4  # channels

CALIBRATED = r"""
if how != "off":
    name += " calibrated"
    known["kld"] = {type: kld * known["factor"] for type, kld in known["kld"].items()}
"""

CALIBRATE = r"""
import json
from pathlib import Path
here = Path(__file__).parent
known = json.loads((here / "behaviour.json").read_text())
words = sys.argv[1:]
asked = dict(zip(words[::2], words[1::2]))
with (here.parent / "calibrations.jsonl").open("a") as stream:
    stream.write(json.dumps({**asked, "env": os.environ["LLAMA_ARG_KV_CALIBRATION"],
                             "text": Path(asked["-f"]).read_text() if "-f" in asked else ""}) + "\n")
trouble = known["calibrate"]
if trouble == "refuses":
    sys.exit("error: the model has no K that can be calibrated")
if trouble == "interrupt":
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(30)
calibration = (here / "calibration.gguf").read_bytes()
if "--embed" in asked:
    assert Path(asked["--embed"]).read_bytes() == calibration
    if trouble != "no-copy":
        Path(asked["-o"]).write_bytes(Path(asked["-m"]).read_bytes() + b"calibrated")
    sys.exit(0)
ctx, asked_for = int(asked["-c"]), int(asked["--chunks"])
given = min(asked_for, len(Path(asked["-f"]).read_text().split()) // ctx)
for number in range(given):
    print(f"sequence {number + 1}/{asked_for}", flush=True)
if trouble != "no-file":
    Path(asked["-o"]).write_bytes(calibration)
told = known["statistics"] | {"n_tokens": given * ctx, "n_positions": ctx}
Path(asked["--stats"]).write_text(trouble if trouble.startswith("{") else json.dumps(told))
"""


def keys() -> dict[str, Any]:
    """The first channel has 85 % of the energy of its head before, a quarter after."""
    return {"gain": GAINS, "before": [17.0, 1.0, 1.0, 1.0] * len(GAINS), "after": [1.0] * HEAD * len(GAINS)}


def statistics(layers: int = 2) -> dict[str, Any]:
    """What the program writes, but for the numbers of tokens."""
    each = [{"layer": n, "n_head_kv": 2, "n_embd_head": HEAD, "k": keys()} for n in range(layers)]
    return {"version": 1, "model": "0123456789abcdef", "text": "fedcba9876543210", "layers": each}


def calibration_file() -> bytes:
    """A GGUF without tensors that says what it is."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key_text("general.type", "kv_calibration")
    return head + bytes(-len(head) % 32)


def calibrate_programs(folder: Path, **behaviour: object) -> Path:
    """A folder with both fakes. `calibrate` is what goes wrong: refuses, interrupt, no-file, no-copy, or statistics.

    `factor` is that of the KLD with a calibration, `source` what llama-perplexity says of one that it was not told.
    """
    python_program(folder / "llama-perplexity", COMMON + CALIBRATED + FIGURES + PERPLEXITY)
    python_program(folder / "llama-kv-calibrate", CALIBRATE)
    (folder / "calibration.gguf").write_bytes(calibration_file())
    defaults = {"kld": KLD, "bytes": BYTES, "trouble": {}, "seconds": 0, "stock": False, "uncalibrated": 1}
    defaults |= {"factor": FACTOR, "calibrate": "", "source": "embedded in copy.gguf"}
    known = {**defaults, "statistics": statistics(), **behaviour}
    (folder / "behaviour.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


def calibrations(folder: Path) -> list[dict[str, Any]]:
    """What the fake llama-kv-calibrate in a folder of `folder` was asked, in order."""
    log = folder / "calibrations.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
