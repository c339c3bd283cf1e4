"""Tuning methods: what the configuration of an adapter may say, and which tensors follow from it on
a base.
"""
