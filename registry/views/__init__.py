"""Frozen answers of commands and queries, by noun; doors use them as response models, the client as
results.
"""
