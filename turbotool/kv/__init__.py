"""KV caches as such: their types, rotations, sizes, what a log reports of them, the line that serves them.

Imports `inputs`, `build` and below; runs nothing.
Begin with `cachetype`: a new cache type is a row there.
"""
