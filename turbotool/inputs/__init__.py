"""What programs are fed with: GGUF models and the shape of their caches, the default model, texts.

Imports `series` and below; knows nothing of builds.
Begin with `model.read_model`; every number of a file is checked in `gguf`.
"""
