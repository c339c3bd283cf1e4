"""Which tensors the methods that are not LoRA have on a base: prompts, prefixes, norms, biases,
bottlenecks.
"""

from __future__ import annotations

from registry.artifacts.methods.anatomies import Anatomy, inside
from registry.artifacts.methods.configs import Values
from registry.artifacts.methods.lora import PREFIX, Wanted, adapted, fans, linear, save_whole

PROMPTS = "prompt_embeddings"


def predict_prefix(values: Values, base: Anatomy) -> Wanted:
    """(virtual tokens, 2 x layers x width of the keys): a key and a value in each layer for each
    token.

    A projection that trained them is not saved, only what came out of it.
    """
    wanted = Wanted()
    _agrees(
        values,
        wanted,
        num_layers=base.layers,
        num_attention_heads=base.key_value_heads,
        token_dim=base.key_values,
    )
    wanted.tensors[PROMPTS] = (
        values["num_virtual_tokens"],
        values["num_layers"] * 2 * values["token_dim"],
    )
    return wanted


def predict_prompt(values: Values, base: Anatomy) -> Wanted:
    """(virtual tokens, width of the base), once for each of an encoder and a decoder."""
    wanted = Wanted()
    _agrees(
        values, wanted, num_layers=base.layers, num_attention_heads=base.heads, token_dim=base.width
    )
    rows = values["num_virtual_tokens"] * values["num_transformer_submodules"]
    wanted.tensors[PROMPTS] = (rows, values["token_dim"])
    return wanted


def _agrees(values: Values, wanted: Wanted, **of_base: int | None) -> None:
    """A prompt's one tensor shows little of its base; the numbers PEFT noted when it was trained
    show the rest.
    """
    for key, number in of_base.items():
        if number is None:
            wanted.wrong(
                key,
                "base-unread",
                f"the base's config.json does not say what {key} must be",
                "Bind it to a base whose config.json names its sizes.",
            )
        elif values[key] != number:
            wanted.wrong(
                key,
                "base-differs",
                f"{key} is {values[key]}, but the base has {number}",
                "Bind the adapter to the base it was trained on.",
            )


def predict_norm(values: Values, base: Anatomy) -> Wanted:
    """A copy of each norm's weight (and bias), which stands in for the base's own."""
    wanted = Wanted()
    modules = base.modules()
    nested = {around for module in modules for around in inside(module)[:-1]}
    for module in adapted(values, modules, wanted, "norm"):
        parts = modules[module]
        if (
            len(parts.get("weight", ())) == 1
            and parts.keys() <= {"weight", "bias"}
            and module not in nested
        ):
            stem = f"{PREFIX}{module}.ln_tuning_layers"
            wanted.tensors |= {f"{stem}.{part}": shape for part, shape in parts.items()}
        else:
            wanted.wrong(
                module,
                "target-unfit",
                f"{module} is no norm of one weight vector",
                "Name norms only.",
            )
    save_whole(values, base, wanted)
    return wanted


def predict_beft(values: Values, base: Anatomy) -> Wanted:
    """A bias of (1, out), added to what a linear module gives; PEFT knows no such for a Conv1D."""
    wanted = Wanted()
    for module in adapted(values, linear(base), wanted, "linear"):
        wanted.tensors[f"{PREFIX}{module}.beft_bias"] = (1, base.shapes[f"{module}.weight"][0])
    save_whole(values, base, wanted)
    return wanted


def predict_bottleneck(values: Values, base: Anatomy) -> Wanted:
    """After a linear module of `out` numbers: down (size, out), up (out, size), and a bias each.

    The module's output x becomes x + up(activation(down(x))) (Houlsby et al., arXiv 1902.00751, the
    serial form).
    """
    wanted = Wanted()
    size = values["bottleneck_size"]
    for module in adapted(values, linear(base), wanted, "linear"):
        out, _ = fans(values, base, module)
        stem = f"{PREFIX}{module}.bottleneck"
        wanted.tensors |= {
            f"{stem}_down.weight": (size, out),
            f"{stem}_down.bias": (size,),
            f"{stem}_up.weight": (out, size),
            f"{stem}_up.bias": (out,),
        }
    return wanted
