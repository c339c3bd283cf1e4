"""What is allowed. Pure standard library: no I/O, no clock, no SQL; shipped inside evidence packs
and re-run there.
"""
