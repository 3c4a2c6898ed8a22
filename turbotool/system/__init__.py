"""The machine under us: output, processes, locks, whole-file writes, git behind a fence, untrusted archives.

Knows nothing of llama.cpp; imports `report`, `errors` and `layout`.
Begin with `session`, which every command carries, then `process` and `locks`.
"""
