"""Other upstreams: try the series on them, move the pin to them, and compare it with upstream's own repository.

Imports `verify` and below.
Begin with `run.run`; an attempt lives in a place of its own (`attempt`) until it is proven.
"""
