"""Quality of caches and rotations on a model against f16, and which one to run.

Imports `programs` and below. Inside, from the top: run, compare, report, evaluation, judge, measure, sweep, store,
measurement, cell.
Begin with `run.run`; `sweep` is what is measured, `measure` measures it, `judge` says what follows.
"""
