"""Documents: one strict JSON, one strict YAML, one canonical form."""
