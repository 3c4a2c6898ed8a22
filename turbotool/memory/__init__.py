"""What fits: sizes of KV caches at contexts, against a budget, from a model's metadata alone.

Imports `programs` and below.
Begin with `plan.make_plan`.
"""
