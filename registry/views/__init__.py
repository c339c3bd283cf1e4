"""The frozen answers of commands and queries, by noun.

REST uses them as response models, the client as results.
"""
