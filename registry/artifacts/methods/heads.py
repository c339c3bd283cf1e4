"""Through which of transformers' classes an adapter was trained on a base, and so what the base's
modules are called there.

A model with a head holds its body under a name of its own (transformers 5.23, base_model_prefix);
the body alone has its modules without it. A file of either can be loaded as the other, so one base
has two sets of names, and the names in an adapter say which of them it was trained on. A head that
the base does not bring is drawn at random whenever it is loaded: what was trained beside it counts
only with that head, so the adapter must bring it whole, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.artifacts.methods.anatomies import HEAD, LABELS, Anatomy, Shape, anatomy, bare
from registry.artifacts.methods.configs import CLASSES, FILE, Values
from registry.errors import Defect

PREFIX = "base_model.model."
_DECODERS = {
    "model": "apertus arcee cohere cohere2 gemma gemma2 gemma3_text glm glm4 gpt_oss granite "
    "llama ministral mistral "
    "mixtral nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3 qwen2 qwen2_moe qwen3 "
    "qwen3_moe smollm3 stablelm "
    "starcoder2",
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
DECODERS = {kind: under for under, kinds in _DECODERS.items() for kind in kinds.split()}
BODIES = DECODERS | {kind: under for under, kinds in _ENCODERS.items() for kind in kinds.split()}
"""Type of model -> the name under which its models with a head hold the body. Of another type only
the names that stand in its file are known.
"""

AUTO = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
_W, _N = -2, LABELS
_ONE: dict[str, Shape] = {"weight": (_N, _W), "bias": (_N,)}
_DENSE: dict[str, Shape] = {"dense.weight": (_W, _W), "dense.bias": (_W,)}


def _under(name: str, tensors: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{name}.{last}": shape for last, shape in tensors.items()}


_SCORE: dict[str, Shape] = {"score.weight": (_N, _W)}
_CLASSIFIER = _under("classifier", _ONE)
_DEEP = _under("classifier", _DENSE | _under("out_proj", _ONE))
_BEFORE: dict[str, Shape] = {"pre_classifier.weight": (_W, _W), "pre_classifier.bias": (_W,)}
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
        ("camembert electra roberta xlm-roberta", _DEEP),
        ("deberta-v2", _under("pooler", _DENSE) | _CLASSIFIER),
        ("distilbert", _BEFORE | _CLASSIFIER),
    ),
    "TOKEN_CLS": ((_GENERIC, _under("score", _ONE)), (_OWN, _CLASSIFIER)),
    "QUESTION_ANS": ((f"{_OWN} gptj mistral mixtral opt", _under("qa_outputs", _ONE)),),
}
"""Task -> types of model -> the tensors of the head that transformers puts on the body, by width
and number of labels.
"""

_POOLED = {"bert": "pooler.dense.weight", "albert": "pooler.weight"}
"""What a sequence classifier reads of the body, and a body saved under a language model's head may
lack.
"""


@dataclass(frozen=True, slots=True)
class View:
    """A base as an adapter saw it; `fresh` are tensors of a head the base does not bring.

    `loads_as` is the class of transformers that it must be loaded through, None where it is the one
    it was saved as.
    """

    body: Anatomy
    loads_as: str | None = None
    fresh: frozenset[str] = frozenset()
    defects: tuple[Defect, ...] = ()


def view(
    values: Values, names: Collection[str], shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> View:
    """The one view of a base in which an adapter's tensors may stand; what contradicts that is a
    defect.

    `names` are of the adapter's tensors, `shapes` and `config` are the base's files.
    """
    kind = str(config.get("model_type"))
    if values.get("target_parameters"):
        shapes = fused(shapes, kind)
    task, under = values.get("task_type"), BODIES.get(kind)
    if kind == "gpt_neox" and not any(name.startswith(f"{PREFIX}embed_out.") for name in names):
        # Transformers 5 loads the head under another name than it saves it.
        shapes = {name.replace("embed_out.", f"{HEAD}."): shape for name, shape in shapes.items()}
    firsts = {
        name.removeprefix(PREFIX).partition(".")[0] for name in names if name.startswith(PREFIX)
    }
    whole = anatomy(shapes, config)
    if under is None and task in CLASSES:
        return _classifier(task, kind, "", {}, shapes, config)
    if under is None or not firsts:
        return View(whole)
    headless = not any(name.startswith(f"{under}.") for name in shapes)
    inner = {
        name.removeprefix(f"{under}."): shape
        for name, shape in shapes.items()
        if headless or name.startswith(f"{under}.")
    }
    if _of_body(firsts, under, inner):
        wrong = (
            ()
            if task in (None, "FEATURE_EXTRACTION")
            else (
                Defect(
                    FILE,
                    "task_type",
                    "task-at-odds",
                    f"its tensors are named as AutoModel names them, without {under!r}, and "
                    f"task_type says {task}: loaded by that task none of them finds its place",
                    "Set task_type to FEATURE_EXTRACTION.",
                ),
            )
        )
        return View(bare(inner, config), "AutoModel", defects=wrong)
    if task in CLASSES:
        return _classifier(task, kind, under, inner, shapes, config)
    return _language_model(kind, under, inner, config) if headless else View(whole)


def _of_body(firsts: set[str], under: str, inner: Mapping[str, Shape]) -> bool:
    """Do its tensors stand in the body without its outer name? Names of both kinds are those of the
    whole.
    """
    return under not in firsts and not firsts.isdisjoint(name.partition(".")[0] for name in inner)


def _language_model(
    kind: str, under: str, inner: Mapping[str, Shape], config: Mapping[str, Any]
) -> View:
    """A body alone, and an adapter trained under a head: a tied one is in the body, another must be
    in the adapter.
    """
    outer = {f"{under}.{name}": shape for name, shape in inner.items()}
    whole = anatomy(outer, config)
    if kind not in DECODERS:
        return View(
            whole,
            defects=(
                _no_head(
                    "the base was saved without a head, and the adapter was trained under one, "
                    "which task_type does not name"
                ),
            ),
        )
    named = str(next(iter(config.get("architectures") or ()), ""))
    loads_as = "AutoModelForCausalLM" if named.endswith("Model") else None
    if f"{HEAD}.weight" in whole.shapes:
        return View(whole, loads_as)
    tied = anatomy(outer, {**config, "tie_word_embeddings": True})
    return View(tied, loads_as, frozenset({f"{HEAD}.weight"} & tied.shapes.keys()))


def _classifier(
    task: str,
    kind: str,
    under: str,
    inner: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
) -> View:
    """A classifier as it was saved, or the base's body under a new head of the adapter's own."""
    ending = AUTO[task].removeprefix("AutoModel")
    if any(str(name).endswith(ending) for name in config.get("architectures") or ()):
        return View(bare(shapes, config), AUTO[task])
    head = next((tensors for kinds, tensors in _HEADS[task] if kind in kinds.split()), None)
    body = bare({f"{under}.{name}": shape for name, shape in inner.items()}, config)
    needs = _POOLED.get(kind) if task == "SEQ_CLS" else None
    if head is None or body.width is None:
        return View(
            body, defects=(_no_head(f"what head a {kind} model has for {task} is not known here"),)
        )
    if needs is not None and needs not in inner:
        return View(
            body,
            defects=(_no_head(f"a classifier reads {needs}, which the base was saved without"),),
        )
    fresh = {
        name: tuple(body.width if size == _W else size for size in shape)
        for name, shape in head.items()
    }
    return View(replace(body, shapes={**body.shapes, **fresh}), AUTO[task], frozenset(fresh))


def _no_head(detail: str) -> Defect:
    return Defect(
        FILE,
        "task_type",
        "head-unknown",
        detail,
        "Register the model it was trained on with its head as the base (load it as "
        "it was trained, save_pretrained), and bind the adapter to that.",
    )


def unsaved(fresh: Collection[str], brought: Collection[str]) -> list[Defect]:
    """The tensors of a new head that the adapter does not bring: they would be random whenever it
    is served.
    """
    return [
        Defect(
            FILE,
            "modules_to_save",
            "head-unsaved",
            f"the base has no {name}, so it is drawn at random whenever it is loaded, and "
            "the adapter does not bring it",
            f"Register the model it was trained on with its head as the base, or train again "
            f"with {name.partition('.')[0]} in modules_to_save.",
        )
        for name in sorted(fresh)
        if PREFIX + name not in brought
    ]


_EXPERT = re.compile(
    r"(.+)\.(?:mlp|block_sparse_moe)\.experts\.([0-9]{1,4})\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight"
)
_DOWN = ("down_proj", "w2")
FUSED = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
"""Types that transformers 5 loads with all experts of a layer in two parameters, and saves one by
one.
"""


def fused(shapes: Mapping[str, Shape], kind: str) -> Mapping[str, Shape]:
    """A base's tensors as transformers 5 loads them: (experts, out, in), gates and ups in one.

    Experts that are not all there, or not all alike, stay what they are.
    """
    if kind not in FUSED:
        return shapes
    found: dict[str, Shape] = {}
    parts: dict[str, dict[tuple[int, str], Shape]] = {}
    for name, shape in shapes.items():
        if (match := _EXPERT.fullmatch(name)) is not None:
            layer, index, part = match.groups()
            one = "down_proj" if part in _DOWN else "gate_up_proj"
            parts.setdefault(f"{layer}.mlp.experts.{one}", {})[int(index), part] = shape
        else:
            found[name.replace(".block_sparse_moe.", ".mlp.")] = shape
    for name, held in parts.items():
        experts, kinds = {index for index, _ in held}, {part for _, part in held}
        shape = next(iter(held.values()))
        whole = experts == set(range(len(experts))) and len(held) == len(experts) * len(kinds)
        if (
            whole
            and len(shape) == 2
            and set(held.values()) == {shape}
            and len(kinds) == (2 if name.endswith("up_proj") else 1)
        ):
            found[name] = (len(experts), len(kinds) * shape[0], shape[1])
    return found
