"""Everything that changes the registry: one function = one transaction = one audit entry."""
