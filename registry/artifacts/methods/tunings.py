"""The tensors of the methods other than LoRA: prompts, prefixes, norms, biases, bottlenecks."""

from __future__ import annotations

from collections.abc import Collection

from registry.artifacts.methods.anatomies import Anatomy, inside, is_embedding
from registry.artifacts.methods.configs import Values
from registry.artifacts.methods.effects import Ones, Part, others, replaced
from registry.artifacts.methods.loaded_names import PREFIX
from registry.artifacts.methods.targets import Prediction, adapted, fans, linear, save_whole

PROMPTS = "prompt_embeddings"


def predict_prefix(values: Values, base: Anatomy) -> Prediction:
    """One tensor of (virtual tokens, 2 x layers x width of the keys).

    It holds a key and a value in each layer for each token. A projection that was used in training
    is not saved, only its result.
    """
    prediction = Prediction()
    _check_sizes(
        values,
        prediction,
        num_layers=base.layers,
        num_attention_heads=base.key_value_heads,
        token_dim=base.key_values,
    )
    prediction.tensors[PROMPTS] = (
        values["num_virtual_tokens"],
        values["num_layers"] * 2 * values["token_dim"],
    )
    return prediction


def predict_prompt(values: Values, base: Anatomy) -> Prediction:
    """One tensor of (virtual tokens, width of the base); encoder and decoder have tokens each."""
    prediction = Prediction()
    _check_sizes(
        values,
        prediction,
        num_layers=base.layers,
        num_attention_heads=base.heads,
        token_dim=base.width,
    )
    rows = values["num_virtual_tokens"] * values["num_transformer_submodules"]
    prediction.tensors[PROMPTS] = (rows, values["token_dim"])
    return prediction


def _check_sizes(values: Values, prediction: Prediction, **base_sizes: int | None) -> None:
    """Check the sizes that PEFT recorded in training against the base.

    A prompt has only one tensor, which shows little of its base.
    """
    for key, number in base_sizes.items():
        if number is None:
            prediction.wrong(
                key,
                "base-unread",
                f"the base's config.json does not say what {key} must be",
                "Bind it to a base whose config.json states its sizes.",
            )
        elif values[key] != number:
            prediction.wrong(
                key,
                "base-differs",
                f"{key} is {values[key]}, but the base has {number}",
                "Bind the adapter to the base it was trained on.",
            )


def predict_norm(values: Values, base: Anatomy) -> Prediction:
    """A copy of each norm's weight (and bias), which replaces the base's."""
    prediction = Prediction()
    modules = base.modules()
    nested = {around for module in modules for around in inside(module)[:-1]}
    for module in adapted(values, modules, prediction, "norm"):
        parts = modules[module]
        if (
            len(parts.get("weight", ())) == 1
            and parts.keys() <= {"weight", "bias"}
            and module not in nested
        ):
            stem = f"{PREFIX}{module}.ln_tuning_layers"
            prediction.tensors |= {f"{stem}.{part}": shape for part, shape in parts.items()}
        else:
            prediction.wrong(
                module,
                "target-unfit",
                f"{module} is not a norm with one weight vector",
                "Name only norms.",
            )
    save_whole(values, base, prediction)
    return prediction


def predict_beft(values: Values, base: Anatomy) -> Prediction:
    """A bias of (1, out), added to the output of a linear module; PEFT has none for a Conv1D."""
    prediction = Prediction()
    for module in adapted(values, linear(base), prediction, "linear"):
        prediction.tensors[f"{PREFIX}{module}.beft_bias"] = (1, base.shapes[f"{module}.weight"][0])
    save_whole(values, base, prediction)
    return prediction


def predict_ia3(values: Values, base: Anatomy) -> Prediction:
    """A vector for each module: it scales the outputs (out, 1), or a feedforward's inputs (1, in).

    (IA)^3, Liu et al., arXiv 2205.05638. PEFT takes a module for a feedforward one when its name
    ends with one of feedforward_modules, even in the middle of a word. It scales linear modules,
    not embeddings.
    """
    prediction = Prediction()
    feedforward = tuple(values["feedforward_modules"])
    modules = [module for module in linear(base) if not is_embedding(module)]
    for module in adapted(values, modules, prediction, "linear"):
        out, into = fans(values, base, module)
        shape = (1, into) if module.endswith(feedforward) else (out, 1)
        prediction.tensors[f"{PREFIX}{module}.ia3_l"] = shape
    save_whole(values, base, prediction)
    return prediction


def predict_bottleneck(values: Values, base: Anatomy) -> Prediction:
    """After a linear module with `out` outputs: down (size, out), up (out, size), a bias each.

    The module's output x becomes x + up(activation(down(x))) (Houlsby et al., arXiv 1902.00751, the
    serial form).
    """
    prediction = Prediction()
    size = values["bottleneck_size"]
    for module in adapted(values, linear(base), prediction, "linear"):
        out, _ = fans(values, base, module)
        stem = f"{PREFIX}{module}.bottleneck"
        prediction.tensors |= {
            f"{stem}_down.weight": (size, out),
            f"{stem}_down.bias": (size,),
            f"{stem}_up.weight": (out, size),
            f"{stem}_up.bias": (out,),
        }
    return prediction


def prompt_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A prompt or prefix always changes something: attention shares itself out to more tokens."""
    return [Part(name) for name in sorted(names)]


def norm_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A norm is idle if it is the base's."""
    mark = ".ln_tuning_layers"
    own = sorted(name for name in names if mark in name)
    return [replaced(name, name.removeprefix(PREFIX).replace(mark, "")) for name in own] + others(
        names, own
    )


def beft_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A bias that is added is idle if it is zero."""
    own = sorted(name for name in names if name.endswith(".beft_bias"))
    return [
        Part(name.removeprefix(PREFIX).removesuffix(".beft_bias"), ((name,),)) for name in own
    ] + others(names, own)


def ia3_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A vector that scales is idle if all of it is one."""
    own = sorted(name for name in names if name.endswith(".ia3_l"))
    return [
        Part(name.removeprefix(PREFIX).removesuffix(".ia3_l"), compared=Ones(name)) for name in own
    ] + others(names, own)


def bottleneck_parts(values: Values, names: Collection[str]) -> list[Part]:
    """A bottleneck is idle if it writes zeros, or reads zeros: every activation keeps a zero."""
    parts = []
    for name in sorted(name for name in names if name.endswith(".bottleneck_up.weight")):
        stem = name.removesuffix("_up.weight")
        reads = (f"{stem}_down.weight", f"{stem}_down.bias", f"{stem}_up.bias")
        module = stem.removeprefix(PREFIX).removesuffix(".bottleneck")
        parts.append(Part(module, ((name, f"{stem}_up.bias"), reads)))
    return parts
