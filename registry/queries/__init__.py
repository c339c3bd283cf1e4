"""Everything that can be asked; read-only."""
