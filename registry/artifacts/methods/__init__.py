"""Tuning methods: the configurations that an adapter may have, and its tensors on a base."""
