"""A release archive or a wheel: what it holds, what it needs of a machine, and how an archive is unpacked again.

Imports `programs` and below; proof, and the Python package of a wheel, are handed in.
Begin with `run.run`; what is compiled in, and its licences, is the table in `parts`.
"""
