"""Measures the cells of a sweep, here or on a cluster.

Imports `sweep`, `store` and `cell` of the evaluation.
Begin with `local.run_sweep`.
"""
