"""Where the work runs and at which precision, with the reason for each choice."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from registry.errors import Invalid

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
VERSIONS = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")


@dataclass(frozen=True, slots=True)
class Device:
    """A chosen device; `name` is what torch calls it."""

    name: str
    dtype: torch.dtype
    dtype_reason: str


def choose(dtype: str | None) -> Device:
    """The GPU where there is one, otherwise the CPU.

    `dtype` is the precision of a recipe; None takes the best one for answering. Raises Invalid
    `dtype-unsupported` when this GPU has no bfloat16.
    """
    name = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is not None:
        if dtype == "bfloat16" and name == "cuda" and not torch.cuda.is_bf16_supported():
            raise Invalid("dtype-unsupported", f"{torch.cuda.get_device_name()} has no bfloat16.")
        return Device(name, DTYPES[dtype], "the recipe decides it")
    if name == "cuda" and torch.cuda.is_bf16_supported():
        return Device(name, torch.bfloat16, "bfloat16 halves the memory of a GPU that has it")
    return Device(name, torch.float32, "float32 is what every CPU computes at full speed and alike")


def be_deterministic() -> None:
    """Make the same inputs give the same bytes: always on a CPU, on a GPU where kernels allow it.

    Call it before the first use of the GPU, because cuBLAS reads its variable only once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def environment(device: Device) -> dict[str, Any]:
    """What a report says of the machine and the code.

    It is enough to know whether running again can give the same bytes.
    """
    on_gpu = device.name == "cuda"
    cpu = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else cpu,
        "dtype": str(device.dtype).removeprefix("torch."),
        "dtype_reason": device.dtype_reason,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in VERSIONS},
        "git": _git(),
    }


def _git() -> str | None:
    """The commit of this code, with a + when it was changed since; None outside its repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # In an environment inside another repository, that repository's commit says nothing of this
    # code.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--abbrev=40", "--dirty=+", "--match=")
