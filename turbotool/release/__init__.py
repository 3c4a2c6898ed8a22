"""A release archive: what it holds, what it needs of a machine, and how it is unpacked again.

Imports `programs` and below; proof is handed in.
Begin with `run.run`; what is compiled in, and its licences, is the table in `parts`.
"""
