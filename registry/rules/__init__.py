"""What is allowed. Pure standard library: no I/O, no clock, no SQL.

The same facts therefore always give the same answer: a gate can be run again on evidence that was
kept. Evidence packs hold neither rules nor gate evidence yet, so `countersign-verify --gates`
refuses.
"""
