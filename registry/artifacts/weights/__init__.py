"""Tensors: their headers, digests and roots, and how quantised ones descend from their base."""
