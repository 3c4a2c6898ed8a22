"""The patch series as commits: read, checked, applied, merged, exported, repaired.

Imports `upstream` and below.
Begin with `files` (what the series is) and `apply.ensure_applied`; `merge` places one patch, `classify` and
`conflict` say why one does not fit.
"""
