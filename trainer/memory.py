"""What work costs: the peak memory of this process, and the operations of a training step."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The peak memory in bytes: of the device on a GPU, otherwise of this process.

    The latter is the resident high-water mark in /proc, because that of getrusage is inherited from
    the parent process. It is 0 where there is no /proc.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if not STATUS.exists():
        return 0
    mark = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text("ascii"), re.MULTILINE)
    return int(mark[1]) * 1024 if mark else 0


def flops_per_token(model: nn.Module, first_layer: int) -> int:
    """Estimate the floating point operations that LoRA training takes for one token.

    Forward, a weight costs two operations. Backward, gradients flow from the head down to the first
    adapted layer, which costs two more for each weight on the way, and each trained weight costs
    another two (Kaplan et al. 2020, appendix; frozen weights need no gradient of their own).
    Attention scores are left out.
    """
    forward = backward = trained = 0
    for name, weight in model.named_parameters():
        if weight.dim() != 2:
            continue
        # torch types attributes as tensors.
        tied = model.config.tie_word_embeddings  # type: ignore[union-attr]
        looked_up = "embed_tokens" in name and not tied
        if looked_up:
            continue
        forward += weight.numel()
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer is None or int(layer[1]) >= first_layer:
            backward += weight.numel()
        if weight.requires_grad:
            trained += weight.numel()
    return 2 * (forward + backward + trained)
