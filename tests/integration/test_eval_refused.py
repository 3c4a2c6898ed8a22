"""Real programs that are set otherwise than asked: their figures are refused, with the difference named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_tools import program

from turbotool.errors import ConfigurationMismatch
from turbotool.kv.rotation import DISABLE

pytest.importorskip("scipy")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the wrappers are shell scripts")]

# what stands between turbotool and the real llama-perplexity
SUBSTITUTE = 'for word; do shift; [ "$word" = turbo4 ] && word=q8_0; set -- "$@" "$word"; done'
BLOCK = f"export {DISABLE}=1"


def turbotool(*words: str | Path, work: Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "turbotool", *map(str, words), "--json"]
    environment = {**os.environ, **({"TURBOTOOL_WORK": str(work)} if work.name else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("wrapper", "refused", "says"),
    [
        (SUBSTITUTE, ["off", "v"], "V cache type is q8_0, requested turbo4"),
        (BLOCK, ["v"], f"attn_rot_v is off (blocked by {DISABLE}), expected on"),
    ],
)
def test_a_run_that_was_set_otherwise_is_refused(tmp_path: Path, wrapper: str, refused: list[str], says: str) -> None:
    real = Path(turbotool("build", work=Path())[1]["bin_dir"])
    for path in real.iterdir():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / path.name).symlink_to(path)
    (tmp_path / "bin" / "llama-perplexity").unlink()
    program(tmp_path / "bin" / "llama-perplexity", f'{wrapper}\nexec "{real}/llama-perplexity" "$@"\n')
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Line {n} holds keys and values of some tokens.\n" for n in range(200)))
    words = ("eval", "--bin-dir", tmp_path / "bin", "--corpus", text, "--kv", "q8_0/turbo4", "--rotation", "off,v")
    code, found = turbotool(*words, "--ctx", "256", "--chunks", "1", work=tmp_path / "work")
    assert code == found["error"]["code"] == ConfigurationMismatch.exit_code
    failures = {cell["rotation"]: cell["failure"] for cell in found["cells"]}
    assert [rotation for rotation, why in failures.items() if why] == refused
    assert all(says in failures[rotation] for rotation in refused)
    assert all(cell["mean_kld"] is None for cell in found["cells"] if cell["failure"])
