"""From a model to a server: the context and the cache that fit, by what is known of their loss, and llama-server.

Imports `evaluation`, `memory` and below.
Begin with `run.prepare`, which decides, and `run.serve`, which starts; `families` is what is known of any model.
"""
