"""What may stand in adapter_config.json: a check, a default and a written form for every key.

PEFT's own configuration classes accept unknown keys, any rank, names that are imported, and regular
expressions that hang a server ((a+)+b was measured to run without end). Here every key is known, or
the adapter is refused; and nothing of the file is run as a pattern, by us or, once it is
re-written, by PEFT: names of letters, digits, underscores and dots only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FILE = "adapter_config.json"
MAX_RANK = 512
MAX_TARGETS = 4096
MAX_SAVED = 64
MAX_LAYER = 9999
MAX_NAME = 512
MODULE = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
CLASSES = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
"""Tasks with a head of labels, which the adapter brings whole."""
LIBRARY = re.compile(r"transformers(?:\.[a-z0-9_]+)+")

Values = Mapping[str, Any]
"""A configuration read: every kept key of its method, defaults filled in, lists sorted."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what it must be (and in words), what it is when left out, and how it is written
    again.

    A key that is not `kept` says how training began or with what it was saved; loading does not
    need it. A `sparse` key is written only where it says something.
    """

    holds: Callable[[Any], bool]
    wanted: str
    default: Any = None
    kept: bool = True
    write: Callable[[Any], Any] = lambda value: value
    sparse: bool = False


def is_int(low: int, high: int) -> Callable[[Any], bool]:
    """An integer in a range; JSON's true is none."""
    return lambda value: type(value) is int and low <= value <= high


def is_number(low: float, high: float, *, below: bool = False) -> Callable[[Any], bool]:
    """A number from `low` to `high`, or to `below` it."""
    return lambda value: (
        type(value) in (int, float) and low <= value <= high and not (below and value == high)
    )


def is_one_of(*allowed: Any) -> Callable[[Any], bool]:
    """One of these very values."""
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_text(value: Any) -> bool:
    """A short text or null."""
    return value is None or (isinstance(value, str) and len(value) <= MAX_NAME)


def is_name(value: Any) -> bool:
    """A module by its full name, or the end of one."""
    return isinstance(value, str) and len(value) <= MAX_NAME and MODULE.fullmatch(value) is not None


def is_names(value: Any) -> bool:
    """A list of names of modules."""
    return isinstance(value, list) and 0 < len(value) <= MAX_TARGETS and all(map(is_name, value))


def is_optional(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Null, an empty list, or what `of` accepts."""
    return lambda value: value is None or value == [] or of(value)


def is_components(value: Any) -> bool:
    """A name without dots, or a list of such."""
    names = [value] if isinstance(value, str) else value
    return is_names(names) and not any("." in name for name in names)


def is_tokens(value: Any) -> bool:
    """Different numbers of tokens, or an object from one embedding's name to them."""
    if isinstance(value, dict):
        return len(value) == 1 and all(map(is_name, value)) and all(map(is_tokens, value.values()))
    index = is_int(0, 2**24)
    return (
        isinstance(value, list)
        and 0 < len(value) <= 65536
        and all(map(index, value))
        and len(set(value)) == len(value)
    )


def is_eva(value: Any) -> bool:
    """How EVA began: a few settings, none of which is loaded."""
    return value is None or (
        isinstance(value, dict)
        and len(value) <= 16
        and all(type(one) in (int, float, bool, type(None)) for one in value.values())
    )


def is_import(value: Any) -> bool:
    """A class of transformers by its name and module, as PEFT notes it where no task is set
    (Unsloth adds a mark).
    """
    return (
        isinstance(value, dict)
        and value.keys() <= {"base_model_class", "parent_library", "unsloth_fixed"}
        and isinstance(value.get("parent_library"), str)
        and LIBRARY.fullmatch(value["parent_library"]) is not None
        and is_name(value.get("base_model_class"))
        and is_flag(value.get("unsloth_fixed", True))
    )


def is_layers(value: Any) -> bool:
    """Null, the number of a layer, or a list of them."""
    index = is_int(0, MAX_LAYER)
    return value is None or index(value) or (isinstance(value, list) and all(map(index, value)))


ANYWHERE = ".*\\."
"""What PEFT 0.21 itself writes before a name when it turns experts' modules into parameters; it
matches as the name does.
"""


def is_pattern(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """An object from names of modules to what `of` accepts, or null."""

    def holds(value: Any) -> bool:
        if not isinstance(value, dict) or len(value) > MAX_TARGETS:
            return value is None
        names = [name.removeprefix(ANYWHERE) for name in value]
        return (
            len(set(names)) == len(names)
            and all(map(is_name, names))
            and all(map(of, value.values()))
        )

    return holds


def _sorted(value: Iterable[Any] | None) -> list[Any] | None:
    return sorted(set(value)) if value else None


def _layers(value: Any) -> list[int] | None:
    # PEFT takes an empty list for none at all, and one number for a list of it.
    return [value] if isinstance(value, int) else _sorted(value)


def _pattern(value: Any) -> dict[str, Any]:
    return dict(sorted((name.removeprefix(ANYWHERE), one) for name, one in (value or {}).items()))


def _null(value: Any) -> None:
    return None


COMMON: dict[str, Key] = {
    "task_type": Key(
        lambda value: value is None or value in TASKS, f"null or one of {', '.join(TASKS)}"
    ),
    "inference_mode": Key(is_flag, "true or false", True, write=lambda _: True),
    # Written as what the adapter is bound to here; what stood there is only a hint of what it was
    # trained on.
    "base_model_name_or_path": Key(
        is_text, "a text; the binding is the base root, not this name", write=_null
    ),
    "revision": Key(is_text, "a text or null", write=_null),
    "peft_version": Key(is_text, "a text", kept=False),
}
ANY_TASK = Key(
    lambda value: value is None or value in TASKS + CLASSES,
    f"null or one of {', '.join(TASKS + CLASSES)}",
)
_LIST = "a list of module names; a text would be run as a regular expression"
TARGETS = Key(is_names, _LIST, write=_sorted)
EXCLUDED = Key(is_optional(is_names), f"null or {_LIST}", write=_sorted, sparse=True)
LAYERS = Key(is_layers, "null, a layer's number, or a list of them", write=_layers)
SAVED = Key(
    lambda value: value is None or value == [] or (is_names(value) and len(value) <= MAX_SAVED),
    f"null or a list of at most {MAX_SAVED} exact module names; anything else would be run as "
    "regular expressions",
    write=_sorted,
)
STARTS = (True, False, "gaussian", "orthogonal", "eva", "mica")
"""Starts that leave the base's weights alone."""
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
"""Starts that move a part of the base's weights into the adapter; PEFT can write the outcome as
plain LoRA.
"""

LORA: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "r": Key(is_int(1, MAX_RANK), f"an integer from 1 to {MAX_RANK}", 8),
    # PEFT writes a fraction when it converts a rank-stabilised start: alpha times the root of 2.
    "lora_alpha": Key(is_number(1e-3, 65536), "a number up to 65536", 8),
    "lora_dropout": Key(is_number(0, 1, below=True), "a number from 0 to below 1", 0.0),
    # Empty beside target_parameters only.
    "target_modules": Key(is_optional(is_names), _LIST, write=lambda value: _sorted(value) or []),
    "target_parameters": Key(
        is_optional(is_names), "null or a list of names of parameters", write=_sorted, sparse=True
    ),
    "exclude_modules": EXCLUDED,
    "layers_to_transform": LAYERS,
    "layers_pattern": Key(
        lambda value: value in (None, "", []) or is_components(value),
        "null or names without dots, such as layers",
        write=lambda value: (
            list(dict.fromkeys([value] if isinstance(value, str) else value)) if value else None
        ),
        sparse=True,
    ),
    "rank_pattern": Key(
        is_pattern(is_int(1, MAX_RANK)),
        f"an object from exact module names (no patterns) to ranks up to {MAX_RANK}",
        write=_pattern,
    ),
    "alpha_pattern": Key(
        is_pattern(is_number(1e-3, 65536)),
        "an object from exact module names (no patterns) to numbers up to 65536",
        write=_pattern,
    ),
    "modules_to_save": SAVED,
    "bias": Key(is_one_of("none", "all", "lora_only"), "none, all or lora_only", "none"),
    "lora_bias": Key(is_flag, "true or false", False, sparse=True),
    "trainable_token_indices": Key(
        is_optional(is_tokens),
        "null, a list of numbers of tokens, or an object from one embedding's name to them",
        write=lambda value: value or None,
        sparse=True,
    ),
    "alora_invocation_tokens": Key(
        is_optional(
            lambda value: (
                isinstance(value, list) and len(value) <= 4096 and all(map(is_int(0, 2**24), value))
            )
        ),
        "null or a list of numbers of tokens",
        write=lambda value: value or None,
        sparse=True,
    ),
    "use_dora": Key(is_flag, "true or false", False),
    "use_rslora": Key(is_flag, "true or false", False),
    "fan_in_fan_out": Key(is_flag, "true or false", False),
    # Where training started from is in the trained weights; PEFT would only draw numbers and
    # overwrite them.
    "init_lora_weights": Key(
        is_one_of(*STARTS),
        f"true, false or one of {', '.join(map(str, STARTS[2:]))}",
        True,
        write=lambda _: True,
    ),
    "eva_config": Key(is_eva, "null, or numbers and true or false under names", kept=False),
    "runtime_config": Key(
        lambda value: (
            value is None or (isinstance(value, dict) and value.keys() <= {"ephemeral_gpu_offload"})
        ),
        "null or PEFT's own",
        kept=False,
    ),
    "qalora_group_size": Key(is_int(1, 65536), "an integer", kept=False),
    "megatron_core": Key(
        is_one_of(None, "megatron.core"),
        "null or its default: it is a module to import",
        kept=False,
    ),
}
IMPORTS = "it makes the loader import a class by name"
UNCHECKED = "its tensors cannot be checked yet"
LORA_EMPTY: dict[str, str] = {
    "auto_mapping": IMPORTS,
    "megatron_config": IMPORTS,
    "loftq_config": "it changes the base's weights",
    "corda_config": "it names files that are unpickled",
    "lora_ga_config": "it names files that are unpickled",
    "layer_replication": "it builds another model than the base",
    "arrow_config": "it routes between several adapters",
    "kasa_config": UNCHECKED,
    "monteclora_config": UNCHECKED,
    "velora_config": UNCHECKED,
    "use_qalora": "its tensors have other shapes",
    "use_bdlora": "its tensors have other shapes",
    "ensure_weight_tying": "it ties weights of the base",
    # Of PEFT before 0.3.
    "enable_lora": "its tensors have other shapes",
    "merge_weights": "it was merged into the base",
}
"""Keys that PEFT writes and that must stay at their empty default, each with the reason."""

_STEP = is_int(0, 2**53 - 1)
_PLAIN = ("target_parameters", "trainable_token_indices", "alora_invocation_tokens", "lora_bias")
ADALORA_EMPTY = LORA_EMPTY | dict.fromkeys(_PLAIN, "PEFT has no such AdaLoRA")
ADALORA: dict[str, Key] = {
    **{key: entry for key, entry in LORA.items() if key not in _PLAIN},
    "target_modules": TARGETS,
    "use_dora": Key(is_one_of(False), "false: PEFT has no such AdaLoRA", False),
    "use_rslora": Key(is_one_of(False), "false: it does nothing in AdaLoRA", False),
    "alpha_pattern": Key(
        lambda value: value is None or value == {},
        "nothing: it does nothing in AdaLoRA",
        kept=False,
    ),
    "init_r": Key(is_int(1, MAX_RANK), f"an integer from 1 to {MAX_RANK}", 12),
    "target_r": Key(is_int(1, MAX_RANK), f"an integer from 1 to {MAX_RANK}", 8),
    "rank_pattern": Key(
        is_pattern(
            lambda value: (
                isinstance(value, list) and 0 < len(value) <= MAX_RANK and all(map(is_flag, value))
            )
        ),
        "null or an object from names ending in .lora_E to lists of true and false",
        write=lambda value: value or None,
    ),
    "tinit": Key(_STEP, "a number of steps", 0),
    "tfinal": Key(_STEP, "a number of steps", 0),
    "deltaT": Key(is_int(1, 2**53 - 1), "a number of steps", 1),
    "total_step": Key(is_int(1, 2**53 - 1), "a number of steps"),
    "beta1": Key(is_number(0, 1, below=True), "a number from 0 to below 1", 0.85),
    "beta2": Key(is_number(0, 1, below=True), "a number from 0 to below 1", 0.85),
    "orth_reg_weight": Key(is_number(0, 1e6), "a number from 0", 0.5),
}
PROMPTED: dict[str, Key] = {
    **COMMON,
    "num_virtual_tokens": Key(is_int(1, 65536), "an integer from 1 to 65536"),
    "token_dim": Key(is_int(1, 2**24), "the width PEFT filled in when it saved"),
    "num_layers": Key(
        is_int(1, MAX_LAYER + 1), "the number of layers PEFT filled in when it saved"
    ),
    "num_attention_heads": Key(
        is_int(1, 2**16), "the number of heads PEFT filled in when it saved"
    ),
    "num_transformer_submodules": Key(is_one_of(1, 2), "1, or 2 for an encoder and a decoder", 1),
}
PREFIX: dict[str, Key] = {
    **PROMPTED,
    "prefix_projection": Key(is_flag, "true or false", False),
    "encoder_hidden_size": Key(
        lambda value: value is None or is_int(1, 2**24)(value), "null or an integer"
    ),
    "init_weights": Key(is_one_of(None, "zero"), "null or zero", write=_null),
}
PROMPT: dict[str, Key] = {
    **PROMPTED,
    # How it began: from random numbers, the vocabulary, or a text read by a tokenizer named here.
    # None of it is loaded.
    "prompt_tuning_init": Key(
        is_one_of("RANDOM", "SAMPLE_VOCAB", "TEXT"),
        "RANDOM, SAMPLE_VOCAB or TEXT",
        "RANDOM",
        write=lambda _: "RANDOM",
    ),
    "prompt_tuning_init_text": Key(
        lambda value: value is None or (isinstance(value, str) and len(value) <= 65536),
        "null or a text",
        kept=False,
    ),
    "tokenizer_name_or_path": Key(is_text, "a text or null", kept=False),
}
PROMPT_EMPTY = {
    "auto_mapping": IMPORTS,
    "modules_to_save": "PEFT saves no whole modules beside a prompt",
    "tokenizer_kwargs": "it makes the loader run code that comes with a tokenizer",
}
BEFT: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "target_modules": TARGETS,
    "modules_to_save": SAVED,
    "init_weights": Key(is_flag, "true or false", True, write=lambda _: True),
}
NORM: dict[str, Key] = {
    **COMMON,
    "task_type": ANY_TASK,
    "target_modules": TARGETS,
    "modules_to_save": SAVED,
    "exclude_modules": EXCLUDED,
}
NORM_EMPTY = {"auto_mapping": IMPORTS}
BOTTLENECK: dict[str, Key] = {
    **COMMON,
    "target_modules": TARGETS,
    "layers_to_transform": LAYERS,
    "fan_in_fan_out": Key(is_flag, "true or false", False),
    "bottleneck_size": Key(is_int(1, 65536), "an integer from 1 to 65536"),
    "activation": Key(
        is_one_of("relu", "gelu", "silu", "tanh"), "relu, gelu, silu or tanh", "gelu"
    ),
}
