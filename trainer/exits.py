"""Exit statuses of the child process, in a module that the worker can import without torch."""

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: the child was stopped and can go on from its save point."""
