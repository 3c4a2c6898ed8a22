"""A release that somebody else built: brought here, checked before anything of it is unpacked, and put in its place.

Imports `release` and below; proof is handed in.
Begin with `run.run`; whose signature is taken is said in `signer`, what a signed statement must say in `attestation`.
"""
