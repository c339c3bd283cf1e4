"""Tensors: their headers, bytes, digests and root."""
