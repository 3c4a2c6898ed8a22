"""From the patched tree to programs: tools, options, the key that decides whether anything is to do, CMake and ninja.

Imports `series` and below; knows nothing of models.
Begin with `run.build_product`; a backend is a row of `backends`, a platform one of `platforms`.
"""
