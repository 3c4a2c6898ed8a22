"""Real programs that are set otherwise than asked: their figures are refused, with the difference named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import apart, document
from fake_tools import program

from turbotool.errors import ConfigurationMismatch
from turbotool.kv.rotation import DISABLE

pytest.importorskip("scipy")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the wrappers are shell scripts")]

# what stands between turbotool and the real llama-perplexity
SUBSTITUTE = 'for word; do shift; [ "$word" = turbo4 ] && word=q8_0; set -- "$@" "$word"; done'
SECONDS = 3600  # of a command; the machine may be busy
BLOCK = f"export {DISABLE}=1"


@pytest.mark.parametrize(
    ("wrapper", "refused", "says"),
    [
        (SUBSTITUTE, ["off", "v"], "V cache type is q8_0, requested turbo4"),
        (BLOCK, ["v"], f"attn_rot_v is off (blocked by {DISABLE}), expected on"),
    ],
)
def test_a_run_that_was_set_otherwise_is_refused(tmp_path: Path, wrapper: str, refused: list[str], says: str) -> None:
    real = Path(document("build", timeout=SECONDS)["bin_dir"])
    for path in real.iterdir():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / path.name).symlink_to(path)
    (tmp_path / "bin" / "llama-perplexity").unlink()
    program(tmp_path / "bin" / "llama-perplexity", f'{wrapper}\nexec "{real}/llama-perplexity" "$@"\n')
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Line {n} holds keys and values of some tokens.\n" for n in range(200)))
    words = ("eval", "--bin-dir", tmp_path / "bin", "--corpus", text, "--kv", "q8_0/turbo4", "--rotation", "off,v")
    work = {"TURBOTOOL_WORK": str(tmp_path / "work")}
    done = apart(*words, "--ctx", "256", "--chunks", "1", "--json", variables=work, timeout=SECONDS)
    found = done.document
    assert done.code == found["error"]["code"] == ConfigurationMismatch.exit_code
    failures = {cell["rotation"]: cell["failure"] for cell in found["cells"]}
    assert [rotation for rotation, why in failures.items() if why] == refused
    assert all(says in failures[rotation] for rotation in refused)
    assert all(cell["mean_kld"] is None for cell in found["cells"] if cell["failure"])
