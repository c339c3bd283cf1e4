"""A bundle: its files, what they are by their bytes, its defects, and the judgement over all of
them.
"""
