"""Why an adapter's tensors have other names or sizes than expected, where the cause is known.

Training tools wrap modules and leave the wrapper in the names, or save the embeddings of a changed
vocabulary. Each cause is one defect with a fix that works, in place of one for every tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from registry.artifacts.defects import MAX_LENGTHS
from registry.artifacts.methods.anatomies import HEAD, Anatomy, Shape, is_tokens
from registry.artifacts.methods.loaded_names import PREFIX, loaded_class
from registry.errors import Defect

RENAME = (
    'Rename them, in its folder: python -c "import safetensors.torch as t;'
    "f='adapter_model.safetensors';"
    "t.save_file({{{name}:v for k,v in t.load_file(f).items()}},f,{{'format':'pt'}})\""
)
"""Renames the tensors of the file; `name` is an expression over the old name `k`."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """Something that training leaves in names.

    `marks` finds it; `removal` is the Python method call that removes it from a name.
    """

    marks: re.Pattern[str]
    detail: str
    removal: str

    def strip(self, name: str) -> str:
        """The name without the wrapper."""
        return self.marks.sub("", name)


def _around(name: str, source: str) -> Wrapper:
    """A wrapper that adds a part of this name in the middle of names."""
    return Wrapper(
        re.compile(rf"(?<=\.){name}\."),
        f"contain {name}, which {source}",
        f".replace('{name}.','')",
    )


WRAPPERS = (
    _around("_orig_mod", "torch.compile puts around the model"),
    _around("_fsdp_wrapped_module", "FSDP puts around modules"),
    _around("_checkpoint_wrapped_module", "activation checkpointing puts around modules"),
    Wrapper(
        re.compile(r"^module\."),
        "begin with module, which DistributedDataParallel puts around the model",
        ".removeprefix('module.')",
    ),
    Wrapper(
        re.compile(r"\.default(?=\.|$)"),
        "contain the adapter's name, default, which PEFT leaves out when it saves: they come from "
        "state_dict(), not from save_pretrained",
        ".replace('.default','')",
    ),
)
"""Wrappers of torch 2.13 and PEFT 0.21, each with the expression that removes it."""


def wrapped(file: str, names: Collection[str], expected: Collection[str]) -> Defect | None:
    """The defect of names that are as expected once wrappers are removed, or None.

    Loaders match names as they are, and drop the others with no more than a warning.
    """
    plain, wrappers = list(names), []
    for wrapper in WRAPPERS:
        if any(map(wrapper.marks.search, plain)):
            plain = [wrapper.strip(name) for name in plain]
            wrappers.append(wrapper)
    lacking = [name for name in plain if not name.startswith(PREFIX)]
    if lacking and len(lacking) == len(plain):
        plain = [PREFIX + name for name in plain]
    else:
        lacking = []
    changed = sum(new != old for new, old in zip(plain, names, strict=True))
    if not changed or not set(plain) & set(expected):
        return None
    name = "k" + "".join(wrapper.removal for wrapper in wrappers)
    if lacking:
        name = f"'{PREFIX}'+{name}"
    details = [wrapper.detail for wrapper in wrappers]
    details += [f"lack the prefix {PREFIX} of PEFT's files"] if lacking else []
    return Defect(
        file,
        next(old for new, old in zip(plain, names, strict=True) if new != old),
        "tensor-wrapped",
        f"the names of {changed} of {len(plain)} tensors {'; and '.join(details)}. A loader drops "
        "such tensors",
        RENAME.format(name=name),
    )


_SAVED_FORMS = (".modules_to_save", ".original_module", ".token_adapter.base_layer", ".base_layer")


def resized(
    file: str, present: Mapping[str, Shape], base: Anatomy
) -> tuple[list[Defect], frozenset[str]]:
    """The defect of a vocabulary that was resized before training, and the modules it concerns.

    PEFT then saves the whole embedding, under several names where it was trained as well (measured
    with PEFT 0.21). Their sizes say that the base was another.
    """
    sizes: dict[str, int] = {}
    rows = 0
    for name, shape in present.items():
        module = name.removeprefix(PREFIX).removesuffix(".weight")
        for form in _SAVED_FORMS:
            module = module.removesuffix(form)
        known = base.shapes.get(f"{module}.weight")
        if (
            (is_tokens(module) or module == HEAD)
            and known is not None
            and name.endswith(".weight")
            and len(shape) == 2
            and shape[1:] == known[1:]
            and shape != known
        ):
            sizes[module], rows = shape[0], known[0]
    if len(set(sizes.values())) != 1:
        return [], frozenset()
    count = next(iter(sizes.values()))
    what = (
        f"{count - rows} tokens were added" if count > rows else f"{rows - count} rows were cut off"
    )
    return [
        Defect(
            file,
            min(sizes),
            "vocabulary-resized",
            f"it holds {' and '.join(sorted(sizes))} with {count} rows, and the base has {rows}: "
            f"{what} before training, so it was trained on another base",
            "Save the resized model without the adapter (save_pretrained) and register it as a "
            "base. Then load the adapter on it, save that with save_embedding_layers=False, and "
            "bind it to the new base.",
        )
    ], frozenset(sizes)


def older_names(
    file: str, model_class: str, present: Collection[str], expected: Collection[str]
) -> Defect | None:
    """The defect of an adapter whose every name is that of the base's file, or None.

    transformers renames the base's tensors when it loads them, and PEFT does not rename this
    adapter's: all of them would be dropped, and the base would answer alone.
    """
    loaded = loaded_class(model_class)
    if loaded is None or not present or not set(present).isdisjoint(expected):
        return None
    inner = {name.removeprefix(PREFIX): name for name in present if name.startswith(PREFIX)}
    placed = {inner[name]: PREFIX + here for name, here in loaded.placed(inner).items()}
    if set(placed.values()) != set(expected):
        return None
    pairs = sorted({_difference(old, new) for old, new in placed.items()})
    before, after = (part.removeprefix(PREFIX) for part in pairs[0])
    return Defect(
        file,
        min(placed),
        "names-older",
        f"its tensors have the names of an older transformers: {model_class} of transformers 5 "
        f"calls {before} {after}, PEFT would drop all of them without an error, and the base would "
        "answer alone",
        _renaming(placed, pairs),
    )


def _renaming(placed: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> str:
    """The command that renames the tensors, where text replacements alone can do it."""

    def renamed(name: str) -> str:
        for before, after in pairs:
            name = name.replace(before, after)
        return name

    calls = "".join(f".replace({before!r},{after!r})" for before, after in pairs)
    command = RENAME.format(name=f"k{calls}")
    if len(command) <= MAX_LENGTHS["fix"] and all(
        renamed(old) == new for old, new in placed.items()
    ):
        return command
    return (
        "Load base and adapter with the transformers and PEFT that trained it, load the base with "
        "transformers 5 beside it, and copy the weights module by module; or train it again."
    )


def _difference(old: str, new: str) -> tuple[str, str]:
    """The parts of two names up to and with the first part of their common ending.

    The number of a layer differs from tensor to tensor, so the parts end before it.
    """
    before, after = old.split("."), new.split(".")
    same = 0
    while same < min(len(before), len(after)) and before[-1 - same] == after[-1 - same]:
        same += 1
    kept = len(before) - same, len(after) - same
    number = next((place for place in range(same) if before[kept[0] + place].isdecimal()), 0)
    return ".".join(before[: kept[0] + number]) + ".", ".".join(after[: kept[1] + number]) + "."
