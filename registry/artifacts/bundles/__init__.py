"""A bundle: the names its files may have, what they are by their bytes, and the judgement on it."""
