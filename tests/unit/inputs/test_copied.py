"""A copy calls itself what it is told to, and holds the model's keys and tensors but for those that are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from turbotool.inputs.copied import write_copy
from turbotool.inputs.synthetic import Shape, write_model

PLAIN = Shape("llama", layers=1, heads=1, head_dim=64)


def test_keys_and_tensors_are_taken_over_changed_and_added(tmp_path: Path) -> None:
    import gguf

    model = write_model(tmp_path / "model.gguf", PLAIN)
    added = np.full(64, 2.0, np.float32)
    copy = write_copy(
        model,
        tmp_path / "copy.gguf",
        arch="other",
        keys={".context_length": 77, ".windows": [True, False], "general.name": "x"},
        tensors={"output_norm.weight": added, "new.weight": added},
        change=lambda name, data: 2 * data if name == "blk.0.attn_q.weight" else data,
    )
    was, found = gguf.GGUFReader(model), gguf.GGUFReader(copy)
    assert found.fields["general.architecture"].contents() == "other"
    assert not [name for name in found.fields if name.startswith("llama.")]
    assert found.fields["other.block_count"].contents() == 1
    assert found.fields["other.context_length"].contents() == 77
    assert found.fields["other.windows"].contents() == [True, False]
    before, after = ({one.name: one.data for one in read.tensors} for read in (was, found))
    assert set(after) == {*before, "new.weight"}
    for name, data in after.items():
        expected = added if name in ("output_norm.weight", "new.weight") else before[name]
        assert np.array_equal(data, 2 * expected if name == "blk.0.attn_q.weight" else expected), name
