"""An evaluation as JSON, tables, plots and HTML; several models in one table.

Imports `evaluation`, `judge` and below.
Begin with `document`, then `write`.
"""
