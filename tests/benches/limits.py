"""Hostile bundles: CPU seconds of judging each; tests/api/test_limits.py holds the memory of the
real server.
"""

from __future__ import annotations

import gc
import os
import time

from registry.artifacts.bundles.judge import inspect
from tests.artifacts.bundle_files import declared
from tests.assets.cases import Files, sound
from tests.assets.worst import WORST, like_gemma


def run() -> None:
    """Print a line a bundle, each judged in a child as the server would: seconds of CPU, and the
    bound of one.
    """
    makers = {
        **{name: make for name, (make, _) in WORST.items()},
        "the largest genuine tokenizer": lambda: sound() | {"tokenizer.json": like_gemma()},
    }
    for name, make in makers.items():
        files = make()
        if (child := os.fork()) == 0:
            _judge(name, files)
            os._exit(0)
        os.waitpid(child, 0)


def _judge(name: str, files: Files) -> None:
    listed, read = declared(files)
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    began = time.process_time()
    inspect("base", listed, read, base=None, meta={})
    print(f"{name[:44]:<44}{time.process_time() - began:>9.2f} s    bound 1 s", flush=True)
