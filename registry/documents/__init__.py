"""Documents: one strict JSON reader, one strict YAML reader and one canonical form."""
