"""Bottleneck adapters: a small module after a linear one, in a file format of our own.

The output x of each adapted module becomes x + up(activation(down(x))) (Houlsby et al., arXiv
1902.00751). `up` begins at zero, so an untrained adapter changes nothing. PEFT has no such method.
The registry knows the tensors' names and shapes (registry.artifacts.methods.tunings); neither PEFT
nor any engine does, so such an adapter is served in this process only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS
from registry.artifacts.methods import adapters
from registry.artifacts.methods.anatomies import Anatomy
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.loaded_names import PREFIX

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}
DOWN = ".bottleneck_down.weight"


class Bottleneck(torch.nn.Module):
    """A projection from `width` down to `size`, an activation, and a projection up again."""

    def __init__(self, width: int, size: int, activation: str) -> None:
        super().__init__()
        self.down = torch.nn.Linear(width, size)
        self.up = torch.nn.Linear(size, width)
        self.activation = ACTIVATIONS[activation]
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.down(x.to(self.up.weight.dtype)))
        result: torch.Tensor = x + self.up(hidden).to(x.dtype)
        return result


def attach(base: Any, config: adapters.Config, body: Anatomy) -> dict[str, Bottleneck]:
    """Put fresh bottlenecks on a base; return them by the full names of the adapted modules."""
    parts = {}
    for name, shape in config.method.predict(config.values, body).tensors.items():
        if not name.endswith(DOWN):
            continue
        size, width = shape
        module = name.removeprefix(PREFIX).removesuffix(DOWN)
        part = Bottleneck(width, size, config.values["activation"]).to(base.device)
        parts[module] = part

        def after(
            _: Any, inputs: Any, output: torch.Tensor, part: Bottleneck = part
        ) -> torch.Tensor:
            result: torch.Tensor = part(output)
            return result

        base.get_submodule(module).register_forward_hook(after)
    return parts


def save(parts: dict[str, Bottleneck], config: adapters.Config, folder: Path) -> None:
    """Write the two files of an adapter that is not bound to a base yet."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{PREFIX}{module}.bottleneck_{name}": weight.detach().contiguous()
        for module, part in parts.items()
        for name, weight in part.named_parameters()
    }
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / FILE).write_bytes(adapters.written(config, None, None))


def load(base: Any, folder: Path, config: adapters.Config, body: Anatomy) -> Any:
    """Put the bottlenecks of a folder on the base and return it, ready to answer.

    The caller has checked that the folder fits the base.
    """
    tensors = load_file(folder / ADAPTER_WEIGHTS, device=str(base.device))
    for module, part in attach(base, config, body).items():
        stem = f"{PREFIX}{module}.bottleneck_"
        part.load_state_dict(
            {
                name.removeprefix(stem): weight
                for name, weight in tensors.items()
                if name.startswith(stem)
            }
        )
    return base.eval()
