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

import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoTokenizer, set_seed

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS
from registry.artifacts.methods import adapters, fits, heads, loaded_names
from registry.artifacts.methods.anatomies import Anatomy, anatomy
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import View
from registry.artifacts.methods.loaded_names import LoadedClass
from registry.artifacts.methods.recipe_fits import fit_defects, targets_in_full
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


def load_base(folder: Path, device: Device, adapter: Path | None = None) -> Any:
    """The base model on the device, frozen and in evaluation mode.

    It is loaded through the class that the registry takes for training, or through that by whose
    names the adapter was trained. Only safetensors are read, and no code of the model's own runs.
    Raises Invalid `weights-missing` where the model has weights that the files do not give:
    transformers would draw them at random.
    """
    config = _config_of(folder)
    through = loaded_names.trained_class(config)[0]
    if adapter is not None:
        through = _loads_as(folder, adapter, config) or through
    model, loaded = getattr(transformers, through).from_pretrained(
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


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = strict_json.loads(path.read_bytes()) if path.is_file() else {}
    return config if isinstance(config, dict) else {}


def _loads_as(folder: Path, adapter: Path, config: dict[str, Any]) -> str | None:
    """The automatic class by whose names an adapter was trained, where the registry names one."""
    read, _ = adapters.read_config(strict_json.loads((adapter / FILE).read_bytes()))
    if read is None:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        shapes |= {info.name: info.shape for info in _tensors_of(path)}
    names = [info.name for info in _tensors_of(adapter / ADAPTER_WEIGHTS)]
    return heads.view(read.values, names, shapes, config).loads_as


def _tensors_of(path: Path) -> list[TensorInfo]:
    with safe_open(path, "pt") as weights:
        names = weights.keys()  # `weights` is no dict and cannot be iterated over
        slices = [(name, weights.get_slice(name)) for name in names]
        return [
            TensorInfo(name, tensor.get_dtype(), tuple(tensor.get_shape()), 0, 0)
            for name, tensor in slices
        ]


def end_tokens(net: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens at which this model ends an answer, and every engine with it."""
    ends = net.generation_config.eos_token_id or tokenizer.eos_token_id
    return tuple(ends) if isinstance(ends, list) else (ends,)


def wrap(base: Any, recipe: Recipe) -> Any:
    """Put fresh LoRA weights on the base.

    The seed is set here and not earlier, because any random number drawn in between would change
    the weights. Raises Invalid `layers-beyond-base` or `targets-missing` when the base lacks the
    recipe's layers or targets; the registry asks the same when the training is queued.
    """
    body = anatomy_of(base)
    for defect in fit_defects(body, recipe.targets, recipe.layers):
        raise Invalid(defect.rule, defect.detail, defect.fix)
    layers = list(range(recipe.layers[0], recipe.layers[1] + 1)) if recipe.layers else None
    targets = targets_in_full(body, recipe.targets, layers)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=targets or list(recipe.targets),
        bias="none",
        layers_to_transform=None if targets else layers,
    )
    set_seed(recipe.seed)
    return get_peft_model(base, config)


def anatomy_of(base: Any) -> Anatomy:
    """The shapes that adapters are checked against.

    Take it before any adapter is on the base, because PEFT renames the modules it wraps.
    """
    shapes = {name: tuple(weight.shape) for name, weight in base.named_parameters()}
    return anatomy(shapes, base.config.to_dict())


def class_of(base: Any) -> LoadedClass | None:
    """What the registry knows of the names of a loaded model's class."""
    return loaded_names.loaded_class(type(base).__name__)


def check_fit(folder: Path, body: Anatomy, loaded: LoadedClass | None = None) -> adapters.Config:
    """Check an adapter's files against a base by the registry's rules, before it is loaded.

    `loaded` is the base's class, by whose names PEFT may rename the adapter. PEFT drops a tensor
    that fits nowhere with only a warning, and vLLM 0.32 was seen to load an adapter of another
    width silently. The base would then answer in the adapter's name. Raises BundleRejected.
    """
    raw = strict_json.loads((folder / FILE).read_bytes())
    config, defects = adapters.read_config(raw)
    if config is not None:
        config = adapters.untied(config, raw, body.tied)
        tensors = _tensors_of(folder / ADAPTER_WEIGHTS)
        renamed = loaded.by_peft([info.name for info in tensors]) if loaded else {}
        view = View(body, renamed=renamed)
        defects = fits.fit(ADAPTER_WEIGHTS, config, tensors, view).defects
    if config is None or defects:
        raise BundleRejected(defects)
    return config


def adapted(base: Any, folder: Path) -> Any:
    """The base with a trained adapter on it, ready to answer. Raises BundleRejected."""
    body = anatomy_of(base)
    config = check_fit(folder, body, class_of(base))
    if config.method.serving == "in-process":
        return bottleneck.load(base, folder, config, body)
    return PeftModel.from_pretrained(base, folder, local_files_only=True).eval()
