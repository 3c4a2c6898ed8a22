"""The built programs: which ones, how they are run, and what each of them prints.

Imports `kv` and below.
Begin with `runner.Runner.cached`, through which every run with a KV cache goes, and `choose`.
"""
