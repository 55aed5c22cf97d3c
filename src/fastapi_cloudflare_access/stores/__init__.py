"""Stores of what the workers of a fleet share, for `snapshot_store=` and `revocation_store=`.

Every record is signed with the secret of its store, so a store can lose or withhold records, but not make them up.
"""
