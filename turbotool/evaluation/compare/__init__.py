"""Two result sets side by side, of two builds or two machines.

Imports `report` and below of the evaluation.
Begin with `contrast.contrast`.
"""
