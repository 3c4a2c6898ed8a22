"""Proven llama.cpp binaries with a TurboQuant KV cache."""

__version__ = "0.1.0"
