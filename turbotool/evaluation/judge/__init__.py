"""What the figures say: intervals, verdicts, the recommendation.

Imports `measure` and below of the evaluation.
Begin with `verdict.compare_all` and `choice.choose`.
"""
