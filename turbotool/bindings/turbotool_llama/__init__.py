"""llama-cpp-python with turbotool's build of llama.cpp. `turbotool python-env` or a wheel puts this in an environment.

Nothing has to be imported for it: `import llama_cpp` finds the libraries of the build, checks that they fit, and
calibrates a quantized K as the programs do. Here are the names of the cache types.

    from llama_cpp import Llama
    from turbotool_llama import kv

    Llama("model.gguf", **kv("turbo4"))

Where no .pth file is read, as in a folder of `pip install --target`, this package must be imported before llama_cpp.
"""

from __future__ import annotations

from .wire import wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # this module is imported whenever Python starts
    from typing import Any

__all__ = ["calibration", "kv", "number", "report"]
PREFIX = "TURBO"

wire()


def number(cache: str) -> int:
    """The number of a cache type, as `type_k` and `type_v` of `Llama` take it. Raises ValueError for another name."""
    from .build import read_build

    types = read_build()["types"]
    if cache not in types:
        raise ValueError(f"unknown cache type '{cache}': use one of {', '.join(types)}")
    return int(types[cache])


def kv(cache: str) -> dict[str, Any]:
    """Keywords for `Llama`: `turbo4` is that type for K and V, `q8_0/turbo4` one for each.

    Flash attention is on, which a quantized V needs. Raises ValueError for an unknown type.
    """
    k, slash, v = cache.partition("/")
    return {"type_k": number(k), "type_v": number(v if slash else k), "flash_attn": True}


def calibration(how: str | None = None) -> str:
    """What contexts that are created from now on are calibrated with: `auto`, `off`, or a file, as --kv-calibration.

    Without an argument: what it is now. Raises ValueError for an empty word.
    """
    from llama_cpp import llama_cpp

    from .fit import calibration_now, set_calibration

    if how is not None:
        set_calibration(llama_cpp, how)
    return calibration_now(llama_cpp)


def report() -> dict[str, Any]:
    """Versions, the libraries, and what was compared with their llama.h: see `fit.Fit`."""
    import llama_cpp

    from .fit import done

    return {"version": llama_cpp.__version__, "calibration": calibration(), **done()}


def __getattr__(name: str) -> int:
    """`TURBO4` and the like: the number of the type of that name."""
    if name.startswith(PREFIX):
        try:
            return number(name.lower())
        except ValueError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
