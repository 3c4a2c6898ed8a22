"""The metadata of a model's architecture, with the types that its keys must have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import ModelError
from turbotool.inputs.gguf import Header

MAX_LAYERS = 4096
OTHER_MODEL = "name a language model in GGUF form"
DAMAGED = "the file is damaged; download it again"


@dataclass(frozen=True)
class Metadata:
    """Keys are named without the architecture before them; a value of another type raises ModelError."""

    header: Header
    path: Path
    arch: str

    def has(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.header.metadata

    def integer(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A number from `least` up to 32 bits; a key that is missing has the default, or is an error without one."""
        value = self.header.metadata.get(f"{self.arch}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 32:
            wanted = "a positive number" if least else "a number"
            raise ModelError(f"{self.path}: {self.arch}.{key} is {value!r}, not {wanted}", hint=OTHER_MODEL)
        return value

    def layers(self) -> int:
        """Raises ModelError for more than MAX_LAYERS: what is one a layer is spread over as many as a file claims."""
        count = self.integer("block_count")
        if count > MAX_LAYERS:
            raise ModelError(f"{self.path}: {self.arch}.block_count is {count}, more than {MAX_LAYERS}", hint=DAMAGED)
        return count

    def listed(self, key: str) -> tuple[int, ...] | None:
        """The numbers or truth values of a list; None if the key is missing or is no list."""
        value = self.header.metadata.get(f"{self.arch}.{key}")
        if not isinstance(value, tuple):
            return None
        counts = tuple(int(item) for item in value if isinstance(item, int) and item >= 0)
        if len(counts) != len(value):
            raise ModelError(f"{self.path}: {self.arch}.{key} is a list of something else than counts", hint=DAMAGED)
        return counts

    def per_layer(self, key: str, layers: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of one number a layer, or one number for all."""
        counts = self.listed(key)
        if counts is None:
            if default is not None and not self.has(key):
                return default
            return (self.integer(key, least=0),) * layers
        if len(counts) != layers:
            raise ModelError(
                f"{self.path}: {self.arch}.{key} has {len(counts)} values for {layers} layers", hint=DAMAGED
            )
        return counts
