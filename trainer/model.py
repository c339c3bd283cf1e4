"""A base model from a folder, and adapters on it.

Nothing is ever downloaded: only files that the digests cover are loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# The libraries read these when they are first imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS
from registry.artifacts.methods import adapters, fits
from registry.artifacts.methods.anatomies import Anatomy, anatomy
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import View
from registry.artifacts.weights.tensors import TensorInfo
from registry.documents import strict_json
from registry.errors import BundleRejected, Invalid
from registry.rules.recipes import Recipe
from trainer import bottleneck
from trainer.device import Device


def load_tokenizer(folder: Path) -> Any:
    """The base's tokenizer; one without a padding token pads with its end-of-text token."""
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.eos_token_id is None:
        raise Invalid("no-end-token", "The base's tokenizer names no end-of-text token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(folder: Path, device: Device) -> Any:
    """The base model on the device, frozen and in evaluation mode.

    Only safetensors are read, and no code of the model's own runs. Raises Invalid `weights-missing`
    where the model has weights that the files do not give: transformers would draw them at random.
    """
    model, loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=device.dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if lacking := sorted({*loaded["missing_keys"], *(key[0] for key in loaded["mismatched_keys"])}):
        raise Invalid(
            "weights-missing",
            f"The files lack {len(lacking)} weights of the model, or have them in another shape; "
            f"the first is {lacking[0]}.",
        )
    model.requires_grad_(False)
    return model.to(device.name).eval()


def end_tokens(net: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens at which this model ends an answer, and every engine with it."""
    ends = net.generation_config.eos_token_id or tokenizer.eos_token_id
    return tuple(ends) if isinstance(ends, list) else (ends,)


def wrap(base: Any, recipe: Recipe) -> Any:
    """Put fresh LoRA weights on the base.

    The seed is set here and not earlier, because any random number drawn in between would change
    the weights. Raises Invalid `layers-beyond-base` or `targets-missing` when the base lacks the
    recipe's layers or targets.
    """
    depth = base.config.num_hidden_layers
    first, last = recipe.layers or (0, depth - 1)
    if last >= depth:
        raise Invalid(
            "layers-beyond-base",
            f"The recipe adapts layers {first} to {last}; the base has 0 to {depth - 1}.",
        )
    names = {name.rpartition(".")[2] for name, _ in base.named_modules()}
    if missing := [target for target in recipe.targets if target not in names]:
        raise Invalid("targets-missing", f"The base has no modules named {', '.join(missing)}.")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.targets),
        bias="none",
        layers_to_transform=list(range(first, last + 1)) if recipe.layers else None,
    )
    set_seed(recipe.seed)
    return get_peft_model(base, config)


def anatomy_of(base: Any) -> Anatomy:
    """The shapes that adapters are checked against.

    Take it before any adapter is on the base, because PEFT renames the modules it wraps.
    """
    shapes = {name: tuple(weight.shape) for name, weight in base.named_parameters()}
    return anatomy(shapes, base.config.to_dict())


def check_fit(folder: Path, body: Anatomy) -> adapters.Config:
    """Check an adapter's files against a base by the registry's rules, before it is loaded.

    PEFT drops a tensor that fits nowhere with only a warning, and vLLM 0.32 was seen to load an
    adapter of another width silently. The base would then answer in the adapter's name. Raises
    BundleRejected.
    """
    config, defects = adapters.read_config(strict_json.loads((folder / FILE).read_bytes()))
    if config is not None:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
            names = weights.keys()  # `weights` is no dict and cannot be iterated over
            slices = [(name, weights.get_slice(name)) for name in names]
            tensors = [
                TensorInfo(name, tensor.get_dtype(), tuple(tensor.get_shape()), 0, 0)
                for name, tensor in slices
            ]
        defects = fits.fit(ADAPTER_WEIGHTS, config, tensors, View(body)).defects
    if config is None or defects:
        raise BundleRejected(defects)
    return config


def adapted(base: Any, folder: Path) -> Any:
    """The base with a trained adapter on it, ready to answer. Raises BundleRejected."""
    body = anatomy_of(base)
    config = check_fit(folder, body)
    if config.method.serving == "in-process":
        return bottleneck.load(base, folder, config, body)
    return PeftModel.from_pretrained(base, folder, local_files_only=True).eval()
