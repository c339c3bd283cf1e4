"""How an adapter names its base's modules: the class of transformers it was trained through.

A model with a head has its body under a name of its own (transformers 5.23, base_model_prefix); a
body alone has its modules without that name. A file of either can be loaded as the other, and the
file of a model that also sees or hears as its language model alone. One base thus has several sets
of names, and the names in an adapter say on which of them it was trained. They are always the names
of a loaded model (`loaded_names`), which those of the file need not be. A head
that the base does not contain is random each time it is loaded: what was trained beside it works
only with that head, so the adapter must bring all of it, or is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registry.artifacts.methods.anatomies import (
    HEAD,
    LABELS,
    Anatomy,
    Shape,
    anatomy,
    body_anatomy,
    inside,
)
from registry.artifacts.methods.configs import CLASSES, FILE, Values
from registry.artifacts.methods.loaded_names import (
    PREFIX,
    LoadedClass,
    classes_of,
    saved_class,
    table,
    trained_class,
)
from registry.errors import Defect

_DECODERS = {
    "model": "apertus arcee cohere cohere2 gemma gemma2 gemma3_text glm glm4 gpt_oss granite "
    "llama ministral mistral mixtral nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 "
    "qwen2_moe qwen3 qwen3_moe smollm3 stablelm starcoder2",
    "transformer": "bloom codegen falcon gpt2 gpt_bigcode gpt_neo gptj mpt",
    "gpt_neox": "gpt_neox",
}
_ENCODERS = {
    "bert": "bert",
    "roberta": "camembert roberta xlm-roberta",
    "deberta": "deberta deberta-v2",
    "albert": "albert",
    "distilbert": "distilbert",
    "electra": "electra",
    "mpnet": "mpnet",
}
DECODERS = {kind: name for name, kinds in _DECODERS.items() for kind in kinds.split()}
"""The types of language models in `BODIES`."""

BODIES = DECODERS | {kind: name for name, kinds in _ENCODERS.items() for kind in kinds.split()}
"""The name of the body in models with a head, by type of model.

Of other types only the names in the file are known.
"""

AUTO = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
WIDTH = -2
"""Stands for the width of the base in a shape."""

_OUT: dict[str, Shape] = {"weight": (LABELS, WIDTH), "bias": (LABELS,)}
_DENSE: dict[str, Shape] = {"dense.weight": (WIDTH, WIDTH), "dense.bias": (WIDTH,)}


def _under(name: str, tensors: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{name}.{last}": shape for last, shape in tensors.items()}


_SCORE: dict[str, Shape] = {"score.weight": (LABELS, WIDTH)}
_CLASSIFIER = _under("classifier", _OUT)
_DEEP_CLASSIFIER = _under("classifier", _DENSE | _under("out_proj", _OUT))
_PRE_CLASSIFIER: dict[str, Shape] = {
    "pre_classifier.weight": (WIDTH, WIDTH),
    "pre_classifier.bias": (WIDTH,),
}
_GENERIC = "gemma gemma2 llama mistral mixtral phi phi3 qwen2 qwen2_moe qwen3 qwen3_moe"
_OWN = (
    "bert bloom camembert deberta-v2 distilbert electra falcon gpt2 gpt_neo gpt_neox roberta "
    "xlm-roberta"
)
_HEADS: Mapping[str, tuple[tuple[str, Mapping[str, Shape]], ...]] = {
    "SEQ_CLS": (
        (
            f"{_GENERIC} bloom falcon gemma3_text gpt2 gpt_bigcode gpt_neo gpt_neox gptj opt "
            "stablelm starcoder2",
            _SCORE,
        ),
        ("bert albert", _CLASSIFIER),
        ("camembert electra roberta xlm-roberta", _DEEP_CLASSIFIER),
        ("deberta-v2", _under("pooler", _DENSE) | _CLASSIFIER),
        ("distilbert", _PRE_CLASSIFIER | _CLASSIFIER),
    ),
    "TOKEN_CLS": ((_GENERIC, _under("score", _OUT)), (_OWN, _CLASSIFIER)),
    "QUESTION_ANS": ((f"{_OWN} gptj mistral mixtral opt", _under("qa_outputs", _OUT)),),
}
"""The tensors of the head that transformers puts on a body, by task and types of model."""

_POOLED = {"bert": "pooler.dense.weight", "albert": "pooler.weight"}
"""The tensor of the body that a sequence classifier reads, by type of model.

A body that was saved with a language model's head may lack it.
"""


@dataclass(frozen=True, slots=True)
class View:
    """A base as an adapter saw it in training.

    `fresh` are the tensors of a head that the base does not contain. `loads_as` is the class of
    transformers through which it must be loaded, None for the class with which it was saved.
    `renamed` has the adapter's tensors that PEFT renames when it loads them, each with its new
    name. `model_class` is the class it was trained as, where the base may be loaded as several.
    """

    body: Anatomy
    loads_as: str | None = None
    fresh: frozenset[str] = frozenset()
    defects: tuple[Defect, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    model_class: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a base: its type of model, its name in models with a head, and its tensors.

    The names of the tensors do not contain the name of the body.
    """

    kind: str
    name: str
    tensors: Mapping[str, Shape]

    def named(self) -> dict[str, Shape]:
        """The tensors by their names in models with a head."""
        before = f"{self.name}." if self.name else ""
        return {f"{before}{tensor}": shape for tensor, shape in self.tensors.items()}


def view(
    values: Values, names: Collection[str], shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> View:
    """The view of a base that fits an adapter's tensors; a contradiction is a defect.

    `names` are those of the adapter's tensors. `shapes` and `config` come from the base's files.
    """
    kind = str(config.get("model_type"))
    task, under = values.get("task_type"), BODIES.get(kind)
    if under is None and (task in CLASSES or classes_of(config)):
        return _by_class(values, names, shapes, config)
    if (loaded := trained_class(config)[1] or saved_class(config)) is not None:
        # The name of the body stays as the file has it; the rest of this function reads it.
        shapes = replace(loaded, roots=None).loaded(
            shapes, whole=True, single_experts=_single_experts(values, loaded)
        )
    firsts = {
        name.removeprefix(PREFIX).partition(".")[0] for name in names if name.startswith(PREFIX)
    }
    whole = anatomy(shapes, config)
    if under is None or not firsts:
        return View(whole)
    headless = not any(name.startswith(f"{under}.") for name in shapes)
    tensors = {
        name.removeprefix(f"{under}."): shape
        for name, shape in shapes.items()
        if headless or name.startswith(f"{under}.")
    }
    body = Body(kind, under, tensors)
    if _names_body(firsts, body):
        wrong = _at_odds(task, f"without {under!r}")
        return View(body_anatomy(tensors, config), "AutoModel", defects=wrong)
    if task in CLASSES:
        return _classifier(task, body, shapes, config)
    return _language_model(body, config) if headless else View(whole)


def trained_view(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> View:
    """The view of a base that the trainer has: the language model, as its class loads it."""
    loaded = trained_class(config)[1]
    if loaded is None:
        return View(anatomy(shapes, config))
    tensors = loaded.loaded(shapes, whole=loaded == saved_class(config), single_experts=False)
    return View(anatomy(tensors, config), model_class=loaded.name)


def _single_experts(values: Values, loaded: LoadedClass) -> bool:
    """Whether an adapter may name experts one by one, as they were before transformers 5.

    PEFT turns such an adapter into one of the parameters that hold all experts.
    """
    return not values.get("target_parameters") and loaded.kind in table()["experts_by_peft"]


def _by_class(
    values: Values, names: Collection[str], shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> View:
    """The view through the class whose names the adapter has, of all that can load the base."""
    task, kind = values.get("task_type"), str(config.get("model_type"))
    inner = {name.removeprefix(PREFIX) for name in names}
    # What loads all these names under others, as `misnamed.older_names` then says.
    older: View | None = None
    views: list[tuple[int, View]] = []
    for loads_as, loaded in _candidates(task, config):
        own = loads_as is None
        tensors = loaded.loaded(shapes, whole=own, single_experts=_single_experts(values, loaded))
        renamed = loaded.by_peft(names) if values.get("peft_type", "LORA") == "LORA" else {}
        if task in CLASSES:
            seen = _classifier(task, Body(kind, "", tensors), tensors, config)
        elif loads_as == "AutoModel":
            wrong = _at_odds(task, "without the name of its body")
            seen = View(body_anatomy(tensors, config), loads_as, defects=wrong)
        else:
            seen = View(anatomy(tensors, config), loads_as)
        seen = replace(seen, renamed=renamed, model_class=loaded.name)
        modules = {name.rpartition(".")[0] for name in tensors}
        fitting = sum(
            not modules.isdisjoint(inside(renamed.get(name, name).removeprefix(PREFIX)))
            for name in names
        )
        if fitting == len(names):
            return seen
        if older is None and all(
            not modules.isdisjoint(inside(here)) for here in loaded.placed(inner).values()
        ):
            older = seen
        views.append((fitting, seen))
    if older is not None:
        return older
    if not views:
        if task in CLASSES:
            return _classifier(task, Body(kind, "", {}), shapes, config)
        return View(anatomy(shapes, config))
    return max(views, key=lambda view: view[0])[1]


def _at_odds(task: str | None, how: str) -> tuple[Defect, ...]:
    """The defect of a task that loads a head, in an adapter with the names of a body alone."""
    if task in (None, "FEATURE_EXTRACTION"):
        return ()
    return (
        Defect(
            FILE,
            "task_type",
            "task-at-odds",
            f"its tensors are named as AutoModel names them, {how}, but "
            f"task_type is {task}: loaded for that task, none of them would be used",
            "Set task_type to FEATURE_EXTRACTION.",
        ),
    )


def _candidates(
    task: str | None, config: Mapping[str, Any]
) -> Iterator[tuple[str | None, LoadedClass]]:
    """The classes that can load a base, with the automatic class that leads to each.

    The class it was saved as comes first, and needs no name.
    """
    classes, saved = classes_of(config), saved_class(config)
    if task in CLASSES:
        if AUTO[task] in classes:
            yield AUTO[task], classes[AUTO[task]]
        return
    usual = trained_class(config)[1]
    autos = {row.name: auto for auto, row in reversed(classes.items())}
    order = [*filter(None, (saved, usual))]
    order += [row for auto, row in classes.items() if auto not in AUTO.values()]
    for row in dict.fromkeys(order):
        auto = autos.get(row.name)
        yield (None if row == saved else auto), row


def _names_body(firsts: set[str], body: Body) -> bool:
    """Whether the adapter names the body's modules without the body's own name.

    An adapter with names of both kinds was trained on the whole model.
    """
    inner = {name.partition(".")[0] for name in body.tensors}
    return body.name not in firsts and not firsts.isdisjoint(inner)


def _language_model(body: Body, config: Mapping[str, Any]) -> View:
    """The view of a body alone by an adapter that was trained with a head.

    A tied head is in the body; any other must be in the adapter.
    """
    whole = anatomy(body.named(), config)
    if body.kind not in DECODERS:
        return View(
            whole,
            defects=(
                _no_head(
                    "the base was saved without a head, and the adapter was trained with one that "
                    "task_type does not name"
                ),
            ),
        )
    named = str(next(iter(config.get("architectures") or ()), ""))
    loads_as = "AutoModelForCausalLM" if named.endswith("Model") else None
    if f"{HEAD}.weight" in whole.shapes:
        return View(whole, loads_as)
    tied = anatomy(body.named(), {**config, "tie_word_embeddings": True})
    return View(tied, loads_as, frozenset({f"{HEAD}.weight"} & tied.shapes.keys()))


def _classifier(
    task: str, body: Body, shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> View:
    """The view of a classifier as it was saved, or of a body with a new head of the adapter."""
    ending = AUTO[task].removeprefix("AutoModel")
    if any(str(name).endswith(ending) for name in config.get("architectures") or ()):
        return View(body_anatomy(shapes, config), AUTO[task])
    head = next((tensors for kinds, tensors in _HEADS[task] if body.kind in kinds.split()), None)
    base = body_anatomy(body.named(), config)
    pooled = _POOLED.get(body.kind) if task == "SEQ_CLS" else None
    if head is None or base.width is None:
        return View(
            base,
            defects=(
                _no_head(f"it is not known here which head a {body.kind} model has for {task}"),
            ),
        )
    if pooled is not None and pooled not in body.tensors:
        return View(
            base,
            defects=(_no_head(f"a classifier reads {pooled}, which the base does not contain"),),
        )
    fresh = {
        name: tuple(base.width if size == WIDTH else size for size in shape)
        for name, shape in head.items()
    }
    return View(replace(base, shapes={**base.shapes, **fresh}), AUTO[task], frozenset(fresh))


def _no_head(detail: str) -> Defect:
    return Defect(
        FILE,
        "task_type",
        "head-unknown",
        detail,
        "Register the model it was trained on with its head as the base (load it as in training, "
        "then save_pretrained), and bind the adapter to it.",
    )


def unsaved(fresh: Collection[str], brought: Collection[str]) -> list[Defect]:
    """Defects for the tensors of a new head that the adapter does not bring.

    They would be random each time the adapter is served.
    """
    return [
        Defect(
            FILE,
            "modules_to_save",
            "head-unsaved",
            f"the base has no {name}, so it is random each time it is loaded, and the adapter does "
            "not bring it",
            "Register the model it was trained on with its head as the base, or train again with "
            f"{name.partition('.')[0]} in modules_to_save.",
        )
        for name in sorted(fresh)
        if PREFIX + name not in brought
    ]
