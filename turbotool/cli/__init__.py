"""The command line: each command parses, calls one entry of another room, and prints.

Imports every room; nothing imports it. click is imported here and nowhere else.
Begin with `lazy.COMMANDS`; what commands share is in `options`.
"""
