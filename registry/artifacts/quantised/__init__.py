"""Quantised checkpoints: the recipe of each tensor, and whether its bytes follow from the base."""
