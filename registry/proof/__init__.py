"""How things are proven: canonical bytes, Merkle trees, signed notes and signing keys."""
