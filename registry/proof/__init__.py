"""Proofs: Merkle trees, signed notes, signing keys, and the private files that keep them."""
