"""The pinned llama.cpp: what `vendor/lock.toml` says, where its bytes come from, and the vendored git tree.

Imports `system` and below.
Begin with `lock`, then `tree.ensure_vendored`; `journal` finishes what a killed run had begun.
"""
