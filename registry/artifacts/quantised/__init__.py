"""Quantised checkpoints: which recipe each tensor would need, and whether the bytes follow from the
base.
"""
