"""What this machine has and lacks, and the command that installs it.

Imports `programs` and below.
Begin with `examine`.
"""
