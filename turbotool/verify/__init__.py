"""Proof of binaries: named checks, each with a measured value and its bound.

Imports `programs` and below; nothing else proves, everything that must prove calls `run`.
Begin with `run.run`; a check is a function in `checks/` and a row of `registry`.
"""
