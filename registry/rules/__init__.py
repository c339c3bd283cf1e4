"""Decides what is allowed. Pure standard library: no I/O, no clock, no SQL.

The same facts therefore always give the same answer, and a gate can run again on stored evidence.
Evidence packs contain neither rules nor gate evidence yet, so `countersign-verify --gates` refuses.
"""
