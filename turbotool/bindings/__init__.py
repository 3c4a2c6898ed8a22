"""A Python environment whose llama-cpp-python runs on the libraries of a build, and the proof that it fits them.

Imports `programs` and below. Begin with `run.run`; `carried` is what `release` puts into a wheel. `turbotool_llama` is
what an environment receives: it knows nothing of turbotool, which is not installed there.
"""
