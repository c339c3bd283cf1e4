"""The tuning methods that Countersign knows.

`METHODS` is the only table of what an adapter may be: the registry registers by it, and the trainer
packs by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from registry.artifacts.methods import configs
from registry.artifacts.methods.anatomies import Anatomy
from registry.artifacts.methods.configs import Key, Values
from registry.artifacts.methods.effects import Part
from registry.artifacts.methods.lora import (
    adalora_parts,
    lora_parts,
    predict_adalora,
    predict_lora,
)
from registry.artifacts.methods.targets import Prediction
from registry.artifacts.methods.tunings import (
    beft_parts,
    bottleneck_parts,
    ia3_parts,
    norm_parts,
    predict_beft,
    predict_bottleneck,
    predict_ia3,
    predict_norm,
    predict_prefix,
    predict_prompt,
    prompt_parts,
)


@dataclass(frozen=True, slots=True)
class Method:
    """One kind of adapter: the keys of its configuration, and the tensors they imply on a base.

    `keys` are all the keys it may have. `empty` are keys that PEFT writes and that must be empty,
    each with the reason. `parts` divides an adapter's tensors, named, into what it adapts, each
    with what would make it change nothing. `serving` says who loads it: `engines` of others too,
    only `peft`, or only Countersign's own trainer (`in-process`).
    """

    name: str
    keys: Mapping[str, Key]
    empty: Mapping[str, str]
    predict: Callable[[Values, Anatomy], Prediction]
    parts: Callable[[Values, Collection[str]], list[Part]]
    serving: str = "peft"

    @property
    def required(self) -> tuple[str, ...]:
        """The keys that a configuration must have."""
        return tuple(name for name, key in self.keys.items() if key.required)


METHODS: dict[str, Method] = {
    # rsLoRA, DoRA, biases, patterns, whole modules and converted PiSSA are settings of LoRA.
    "LORA": Method("lora", configs.LORA, configs.LORA_EMPTY, predict_lora, lora_parts, "engines"),
    "ADALORA": Method(
        "adalora", configs.ADALORA, configs.ADALORA_EMPTY, predict_adalora, adalora_parts
    ),
    "PREFIX_TUNING": Method(
        "prefix", configs.PREFIX, configs.PROMPT_EMPTY, predict_prefix, prompt_parts
    ),
    "PROMPT_TUNING": Method(
        "prompt", configs.PROMPT, configs.PROMPT_EMPTY, predict_prompt, prompt_parts
    ),
    "LN_TUNING": Method("norm", configs.NORM, configs.NORM_EMPTY, predict_norm, norm_parts),
    "BEFT": Method("bias", configs.BEFT, configs.NORM_EMPTY, predict_beft, beft_parts),
    "IA3": Method("ia3", configs.IA3, configs.NORM_EMPTY, predict_ia3, ia3_parts),
    # PEFT has no bottleneck adapters; the format is our own (docs/decisions/0017).
    "BOTTLENECK": Method(
        "bottleneck", configs.BOTTLENECK, {}, predict_bottleneck, bottleneck_parts, "in-process"
    ),
}
"""The method by PEFT's type. Any other type is refused by name."""
