"""The list of checks, in the order in which they run: cheap and telling ones first."""

from __future__ import annotations

from turbotool.kv.cachetype import F16, CachePair
from turbotool.verify.check import Spec
from turbotool.verify.checks import batches, devices, effective, gate, memory, quality, shapes, shift, startup, upstream

CHECKS = (
    Spec("binaries-start", "every program starts and reports the expected build", startup.binaries_start),
    Spec("types-listed", "--help lists turbo2, turbo3 and turbo4", startup.types_listed),
    Spec("unknown-type-refused", "an unknown cache type is an error", startup.unknown_type_refused),
    Spec("truncated-model-refused", "a truncated model is an error, not a crash", startup.truncated_model_refused),
    Spec("turbo-codec", "the pinned tables, bit layout and special values of the codec", upstream.turbo_codec),
    Spec(
        "device-capability",
        "a cache that its device cannot use is told and runs on the CPU",
        upstream.device_capability,
    ),
    Spec("last-message", "a program that ends prints its last message, and does end", upstream.last_message),
    Spec("attention-memory", "attention with less memory than it plans for is still right", upstream.attention_memory),
    Spec("quantize-fns", "upstream's test-quantize-fns passes for the turbo types", upstream.quantize_fns, quick=False),
    Spec("device-driver", "upstream's own flash attention runs on the device", devices.device_driver),
    Spec("turbo-devices", "every device quantizes and decodes as the reference does", devices.turbo_devices),
    Spec("backend-ops", "upstream's test-backend-ops passes for the turbo types", upstream.backend_ops),
    Spec("kv-buffer-size", "KV buffers take exactly the type's bits per value", memory.kv_buffer_size),
    Spec("generation-f16", "three factual prompts with an f16 cache", quality.generation(F16)),
    Spec(
        "generation-q8_0-turbo4",
        "three factual prompts with K q8_0, V turbo4",
        quality.generation(CachePair("q8_0", "turbo4")),
    ),
    Spec("kld-noise-floor", "KLD of f16 against itself is zero", quality.noise_floor),
    Spec("kld-q4_0", "KLD of q4_0 rotated on both sides, the yardstick", quality.kld_q4_0),
    Spec("kld-turbo4", "KLD of turbo4 for K and V", quality.kld("turbo4")),
    Spec("kld-q8_0-turbo4", "KLD of K q8_0, V turbo4", quality.kld("q8_0-turbo4")),
    Spec("calibrated-quality", "a calibrated turbo4 cache loses less", quality.calibrated, quick=False),
    Spec(
        "calibrated-biases",
        "turbo4 with large constants in K: broken, and as good as without them once calibrated",
        shapes.calibrated_biases,
        quick=False,
    ),
    Spec("kld-q8_0", "KLD of q8_0 for K and V", quality.kld("q8_0"), quick=False),
    Spec("kld-turbo3", "KLD of turbo3 for K and V", quality.kld("turbo3"), quick=False),
    Spec("kld-turbo2", "KLD of turbo2 for K and V", quality.kld("turbo2"), quick=False),
    Spec(
        "batch-invariance",
        "a cache loses the same however many tokens are computed at once",
        batches.batch_invariance,
        quick=False,
    ),
    Spec("rotation-truth-table", "the gate of the upstream rotation, in the log and in the logits", gate.truth_table),
    Spec("head-size-guard", "a head size that fits no rotation and no turbo block", shapes.head_size_guard),
    Spec("graph-budget", "fused QKV with every rotation fits the graph", shapes.graph_budget),
    Spec("context-shift", "text goes on after the context has filled up", shift.context_shift),
    Spec("shift-fidelity", "the next token after a shift, against f16", shift.shift_fidelity, quick=False),
    Spec("slot-save-restore", "a saved and restored slot continues bit for bit", memory.slot_save_restore),
    Spec(
        "state-files",
        "a damaged state, or one of another rotation, is refused and leaves nothing",
        upstream.state_files,
        quick=False,
    ),
    Spec(
        "calibration",
        "calibrated keys gain where K is quantized, change nothing where it is not, and fit what they belong to",
        upstream.calibration,
        quick=False,
    ),
    Spec(
        "calibrated-architectures",
        "calibrated keys change no architecture of upstream's test where nothing is quantized",
        upstream.calibrated_architectures,
        quick=False,
    ),
    Spec("sequence-copy", "a copied sequence continues like its origin", memory.sequence_copy),
    Spec(
        "effective-configuration",
        "what ran is what was asked for, in every run above",
        effective.effective_configuration,
    ),
)
