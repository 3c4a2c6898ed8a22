"""Speed over cache types, depths and threads, two builds interleaved.

Imports `programs` and below.
Begin with `run.run`; `rounds` runs, `figures` takes medians and ratios.
"""
