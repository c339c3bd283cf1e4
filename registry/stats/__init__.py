"""Numbers over bytes, fast: numpy lives here and nowhere else in the registry."""
