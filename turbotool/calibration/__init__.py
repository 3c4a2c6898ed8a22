"""A calibration of a model's KV cache: measured on a text, written to a file, shown, and checked on text held back.

Imports `programs` and below.
Begin with `run.run`; `passages` splits the text, `program` measures, `check` compares with an uncalibrated cache.
"""
