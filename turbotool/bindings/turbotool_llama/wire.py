"""What makes `import llama_cpp` in this environment load the libraries of the build, and check them first.

A .pth file imports this package whenever Python starts; nothing else is imported until somebody imports llama_cpp.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

BINDINGS = "llama_cpp.llama_cpp"  # the module that loads libllama


class Loader(SourceFileLoader):
    """The module's own loader, with a look at the libraries before it and at the layouts after it."""

    def exec_module(self, module: ModuleType) -> None:
        """Raises ImportError if the libraries do not fit, before anything of them was called."""
        from .build import choose_libraries, fitting
        from .fit import fit

        folder = choose_libraries()
        try:
            super().exec_module(module)
        except AttributeError as error:  # ctypes: the library has no such function
            raise ImportError(f"{folder} does not fit this llama-cpp-python: {error}; {fitting()}") from error
        fit(module, folder)


class Finder:
    """Finds the one module as Python does, and gives it our loader."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != BINDINGS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


def wire() -> None:
    """Look at llama_cpp when it is imported. Raises ImportError if that was done before."""
    if Finder in sys.meta_path:
        return
    if BINDINGS in sys.modules:
        raise ImportError("llama_cpp was imported before turbotool_llama, with other libraries: import this one first")
    sys.meta_path.insert(0, Finder)
