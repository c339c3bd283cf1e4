"""Where it ran and what it cost, as a report states it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from registry.documents import canonical
from trainer import device, memory, model
from trainer.device import Device


def test_a_report_says_what_a_replay_must_know(cpu: Device) -> None:
    told = device.environment(cpu)
    assert told["threads"] == torch.get_num_threads()
    assert told["dtype"] == "float32"
    assert told["dtype_reason"] == "the recipe decides it"
    assert told["versions"]["torch"] == torch.__version__
    assert device.choose(None).dtype_reason != told["dtype_reason"]
    assert canonical.digest(told).startswith("sha256:")


def test_the_peak_is_of_this_process_and_not_of_its_parent() -> None:
    """A child of a large process must not report the parent's mark, as getrusage does after a
    fork.
    """
    held = bytearray(os.urandom(1 << 20) * 300)
    code = "from trainer import memory; print(memory.peak_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = memory.peak_bytes()
    assert mine > len(held)
    assert 20 << 20 < int(child.stdout) < mine


def test_the_arithmetic_of_a_step_is_counted_from_the_first_adapted_layer(
    base: Path, cpu: Device
) -> None:
    net = model.load_base(base, cpu)
    layer = 4 * 256 * 256 + 3 * 256 * 512
    head = len(model.load_tokenizer(base)) * 256
    assert memory.flops_per_token(net, 0) == 2 * (2 * (2 * layer + head))
    assert memory.flops_per_token(net, 1) == 2 * ((2 * layer + head) + (layer + head))
