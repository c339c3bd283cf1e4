"""What a thing is, read from its bytes: bundles, weights, methods, tokenizers, data sets.

This package decides nothing.
"""
