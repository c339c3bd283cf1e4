"""Exit codes that the child process and its worker agree on; apart, because the worker must not
load torch.
"""

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: told to stop; a save point is there to go on from
