"""The names under which transformers loads the tensors of a file.

The names of a file are those of the release that wrote it. transformers renames them when it loads
a model, and an adapter has the names of the loaded model. loaded_names.json is written from
transformers' own conversion mapping (tests/trainer/loaded_names.py); its patterns come from there
and never from an upload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from registry.artifacts.methods.anatomies import Shape

PREFIX = "base_model.model."
"""What PEFT puts before the name of each tensor."""

WRITERS = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
"""The automatic classes whose models go on with a text; the trainer loads a base through them."""

_LAST_NUMBER = re.compile(r".*\.([0-9]+)\.")


@cache
def table() -> Mapping[str, Any]:
    """The whole table, read once."""
    source = resources.files(__package__).joinpath("loaded_names.json")
    document: Mapping[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return document


@dataclass(frozen=True, slots=True)
class Rule:
    """One transform of transformers' mapping, as core_model_loading.py applies it.

    It concerns only names under `scope`, before which the name of the model's body may be missing.
    `operations` are those that make new tensors of the matched ones; a rule without any renames.
    """

    pattern: re.Pattern[str]
    targets: tuple[str, ...]
    scope: tuple[str, ...] | None
    operations: tuple[tuple[Any, ...], ...] = ()
    group: bool = False
    offset: int | None = None

    def match(self, name: str) -> tuple[str, re.Match[str], int] | None:
        """The part before the scope's names, the match, and the number of the matched source."""
        before = ""
        if self.scope is not None:
            inside = next((scope for scope in self.scope if name.startswith(scope)), None)
            if inside is None:
                return None
            before = inside
        match = self.pattern.search(name[len(before) :])
        if match is None:
            return None
        source = next(key for key, text in match.groupdict().items() if text is not None)
        return before, match, int(source[1:])

    def renamed(self, name: str) -> str:
        """The name after this rule; the name itself where the rule does not match."""
        matched = self.match(name)
        if matched is None:
            return name
        before, match, source = matched
        target = self.targets[source if self.group else 0]
        start = match.re.groupindex[f"g{source}"]
        if self.offset is not None:
            target = target.replace(r"\1", str(int(match.group(start + 1)) + self.offset))
        elif "\\" in target:
            for number in range(1, match.re.groups - start + 1):
                target = target.replace(f"\\{number}", match.group(start + number) or "")
        return before + name[len(before) :].replace(match.group(0), target, 1)


@dataclass(frozen=True, slots=True)
class LoadedClass:
    """A class of transformers: how it names what it loads.

    `kind` is the type of model in its configuration, `prefix` the name of its body. `roots` are the
    first two parts of all its names, None where they are not known.
    """

    name: str
    kind: str
    prefix: str
    roots: frozenset[str] | None
    renames: tuple[Rule, ...]
    converters: tuple[Rule, ...]

    def has(self, name: str) -> bool:
        """Whether the model has a module of this name, as far as the first two parts show."""
        return self.roots is None or root(name) in self.roots

    def renamed(self, names: Collection[str]) -> dict[str, str]:
        """Every name after the rules that only rename."""
        current = {name: name for name in names}
        for rule in self.renames:
            if rule.group and not any(
                (matched := rule.match(name)) and matched[2] == 0 for name in current.values()
            ):
                continue
            current = {name: rule.renamed(now) for name, now in current.items()}
        return current

    def placed(self, names: Collection[str]) -> dict[str, str]:
        """Every name as the model loads it, with or without the name of its body as it has it."""
        placed = {}
        for name, renamed in self.renamed(names).items():
            here = self._with_body(renamed)
            if not self.has(here) and self.has(before := self._with_body(name)):
                here = before
            placed[name] = here
        return placed

    def _with_body(self, name: str) -> str:
        if self.roots is None or not self.prefix:
            return name
        inner = name.removeprefix(f"{self.prefix}.")
        if inner != name and root(inner) in self.roots:
            return inner
        outer = f"{self.prefix}.{name}"
        return outer if root(outer) in self.roots else name

    def loaded(
        self, shapes: Mapping[str, Shape], *, whole: bool, single_experts: bool
    ) -> dict[str, Shape]:
        """The tensors of a file as the model has them.

        Unless `whole`, those that this class has no place for are left out, as transformers drops
        them. With `single_experts`, experts keep a module each.
        """
        loaded: dict[str, Shape] = {}
        parts: dict[tuple[str, int], _Parts] = {}
        for name, here in self.placed(shapes).items():
            if not whole and not self.has(here):
                continue
            for number, rule in enumerate(self.converters):
                stacks = any(operation[0] == "MergeModulelist" for operation in rule.operations)
                if (single_experts and stacks) or (matched := rule.match(here)) is None:
                    continue
                _, match, source = matched
                parts.setdefault((rule.renamed(here), number), _Parts()).add(
                    here, source, match.group(0), shapes[name]
                )
                break
            else:
                loaded[here] = shapes[name]
        for (target, number), part in parts.items():
            loaded |= part.made(target, self.converters[number])
        return loaded

    def by_peft(self, names: Collection[str]) -> dict[str, str]:
        """The names of an adapter's tensors once PEFT 0.21 has loaded them.

        Of the types that transformers' mapping lists, PEFT renames LoRA's tensors by the same rules
        (utils/transformers_weight_conversion.py). Of all others it drops what has another name.
        """
        if self.kind not in table()["renamed_by_peft"]:
            return {}
        inner = {
            name.removeprefix(PREFIX): name
            for name in names
            if name.startswith(PREFIX) and ".lora_" in name
        }
        return {
            inner[name]: PREFIX + here
            for name, here in self.renamed(inner).items()
            if not inner[name].endswith(here)
        }


class _Parts:
    """The tensors of a file that become one tensor of the model, or several."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, int, str, Shape]] = []

    def add(self, name: str, source: int, match: str, shape: Shape) -> None:
        self.tensors.append((name, source, match, shape))

    def made(self, target: str, rule: Rule) -> dict[str, Shape]:
        """What is made of them; they themselves where that is not known or they are incomplete."""
        stacks: dict[int, list[Shape]] = {}
        experts: dict[int, set[int]] = {}
        for _, source, match, shape in self.tensors:
            stacks.setdefault(source, []).append(shape)
            if number := _LAST_NUMBER.match(match):
                experts.setdefault(source, set()).add(int(number[1]))
        complete = all(
            numbers == set(range(len(stacks[source]))) for source, numbers in experts.items()
        )
        shapes = _operated(list(stacks.values()), rule) if complete else None
        first = rule.targets[0]
        if shapes is None or (len(shapes) > 1 and first not in target):
            return {name: shape for name, _, _, shape in self.tensors}
        return {
            target.replace(first, rule.targets[number], 1) if number else target: shape
            for number, shape in enumerate(shapes)
        }


def _operated(stacks: Sequence[Sequence[Shape]], rule: Rule) -> list[Shape] | None:
    """The shapes after a rule's operations; None where they are unequal or not known."""
    if len(stacks) != len(rule.pattern.groupindex) or len({len(stack) for stack in stacks}) != 1:
        return None
    if any(len(set(stack)) != 1 for stack in stacks):
        return None
    counts, shapes = [len(stack) for stack in stacks], [stack[0] for stack in stacks]
    for operation, *sizes in rule.operations:
        if operation == "MergeModulelist":
            at = sizes[0]
            shapes = [
                (*shape[:at], count, *shape[at:])
                for shape, count in zip(shapes, counts, strict=True)
            ]
            counts = [1] * len(shapes)
        elif operation == "Concatenate":
            joined = _joined(shapes, sizes[0])
            if joined is None:
                return None
            shapes, counts = [joined], counts[:1]
        elif operation == "Chunk":
            at, count = sizes[0], len(rule.targets)
            if len(shapes) != 1 or at >= len(shapes[0]) or shapes[0][at] % count:
                return None
            shapes = [(*shapes[0][:at], shapes[0][at] // count, *shapes[0][at + 1 :])] * count
        elif operation == "Transpose":
            if any(max(sizes) >= len(shape) for shape in shapes):
                return None
            shapes = [_swapped(shape, *sizes) for shape in shapes]
        elif operation not in ("Interleave", "PermuteForRope", "TransposeToFit"):
            return None
    return shapes if set(counts) == {1} else None


def _joined(shapes: Sequence[Shape], at: int) -> Shape | None:
    if any(at >= len(shape) for shape in shapes):
        return None
    rest = {(*shape[:at], *shape[at + 1 :]) for shape in shapes}
    if len(rest) != 1:
        return None
    return (*shapes[0][:at], sum(shape[at] for shape in shapes), *shapes[0][at + 1 :])


def _swapped(shape: Shape, first: int, second: int) -> Shape:
    sizes = list(shape)
    sizes[first], sizes[second] = sizes[second], sizes[first]
    return tuple(sizes)


def root(name: str) -> str:
    """The first two parts of a name, up to a number."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return first if not second or second.isdecimal() else f"{first}.{second}"


@cache
def loaded_class(name: str) -> LoadedClass | None:
    """The row of a class of transformers; None for one that the table does not have."""
    row = table()["classes"].get(name)
    if row is None:
        return None
    rules = list(_rules(row))
    return LoadedClass(
        name,
        row["type"],
        row["prefix"],
        None if row["roots"] is None else frozenset(row["roots"]),
        tuple(rule for rule in rules if not rule.operations),
        tuple(rule for rule in rules if rule.operations),
    )


def _rules(row: Mapping[str, Any]) -> Iterator[Rule]:
    body = f"{row['prefix']}." if row["prefix"] else ""
    for scope, key in row["rules"]:
        under = None if scope is None else f"{scope}." if scope else ""
        for rule in table()["rules"][key]:
            yield Rule(
                re.compile(rule["from"]),
                tuple(rule["to"]),
                None if under is None else (body + under, under),
                tuple(map(tuple, rule.get("operations", ()))),
                rule.get("group", False),
                rule.get("offset"),
            )


def saved_class(config: Mapping[str, Any]) -> LoadedClass | None:
    """The class as which a base was saved, by its config.json."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return None
    return loaded_class(str(architectures[0]))


def classes_of(config: Mapping[str, Any]) -> dict[str, LoadedClass]:
    """The class that each automatic class loads a base as, by its type of model."""
    row = table()["types"].get(str(config.get("model_type")), {})
    known = {auto: loaded_class(name) for auto, name in row.items()}
    return {auto: row for auto, row in known.items() if row is not None}


def trained_class(config: Mapping[str, Any]) -> tuple[str, LoadedClass | None]:
    """The automatic class through which the trainer loads a base, and what that is.

    It is the one that leads to the class as which the base was saved, which engines serve.
    """
    classes = classes_of(config)
    autos = [auto for auto in WRITERS if auto in classes]
    saved = saved_class(config)
    auto = next((auto for auto in autos if classes[auto] == saved), (*autos, WRITERS[0])[0])
    return auto, classes.get(auto)
