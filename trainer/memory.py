"""What work costs: the most memory this process ever held, and the arithmetic of a training
step.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most bytes held at once: on a GPU those of the device, else this process's resident
    high-water mark.

    Read from /proc, because getrusage's mark is inherited from the parent process. 0 where there is
    no /proc.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    found = (
        re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text("ascii"), re.MULTILINE)
        if STATUS.exists()
        else None
    )
    return int(found[1]) * 1024 if found else 0


def flops_per_token(model: nn.Module, first_layer: int) -> int:
    """Estimated floating point operations a token of LoRA training takes; attention scores are left
    out.

    A weight costs two operations a token forward. Backward, gradients flow from the head down to
    the first adapted layer only, again two a weight, and the trained weights take two more. (Kaplan
    et al. 2020, appendix; frozen weights need no gradient of their own.)
    """
    forward = backward = trained = 0
    for name, weight in model.named_parameters():
        if weight.dim() != 2:
            continue
        looked_up = "embed_tokens" in name and not model.config.tie_word_embeddings  # type: ignore[union-attr]  # torch types attributes as tensors
        if looked_up:
            continue
        forward += weight.numel()
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer is None or int(layer[1]) >= first_layer:
            backward += weight.numel()
        if weight.requires_grad:
            trained += weight.numel()
    return 2 * (forward + backward + trained)
