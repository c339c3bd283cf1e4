"""A base saved as one of transformers' classes and an adapter trained through another: genuine ones
of both ways round.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.numpy import load, save
from transformers.models.auto import modeling_auto

from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import BODIES, DECODERS
from tests.artifacts.bundle_files import Files, declared, look
from tests.trainer.peft_outputs import GPT2, LLAMA, TOKENS

WEIGHTS = "adapter_model.safetensors"
SMALL: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **changes: transformers.LlamaConfig(**LLAMA | {"pad_token_id": 0} | changes),
    "gpt2": lambda **changes: transformers.GPT2Config(**GPT2 | {"pad_token_id": 0} | changes),
    "bert": lambda **changes: transformers.BertConfig(**SMALL | changes),
    "roberta": lambda **changes: transformers.RobertaConfig(**SMALL | changes),
    "distilbert": lambda **changes: transformers.DistilBertConfig(
        **{
            "vocab_size": 48,
            "dim": 16,
            "hidden_dim": 24,
            "n_layers": 2,
            "n_heads": 4,
            "pad_token_id": 0,
            **changes,
        }
    ),
}
WIDER = {
    "llama": {"hidden_size": 24, "head_dim": 6},
    "gpt2": {"n_embd": 24},
    "distilbert": {"dim": 24},
    "bert": {"hidden_size": 24},
    "roberta": {"hidden_size": 24},
}
TARGETS = {
    "llama": ["q_proj", "v_proj"],
    "gpt2": ["c_attn"],
    "distilbert": ["q_lin"],
    "bert": ["query"],
    "roberta": ["query"],
}
AUTO: dict[str, Any] = {
    "body": transformers.AutoModel,
    "lm": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "classes": transformers.AutoModelForSequenceClassification,
    "tokens": transformers.AutoModelForTokenClassification,
    "spans": transformers.AutoModelForQuestionAnswering,
}


@dataclass(frozen=True, slots=True)
class Way:
    """Of which kind the base is, as what it was saved, through what the adapter was trained, and by
    which task.
    """

    kind: str
    saved: str
    through: str
    task: str | None = None
    loads_as: str | None = None
    base: tuple[tuple[str, Any], ...] = ()


CLASSES = "AutoModelForSequenceClassification"
WAYS = (
    Way("llama", "lm", "body", None, "AutoModel"),
    Way("llama", "lm", "body", "FEATURE_EXTRACTION", "AutoModel"),
    Way("llama", "body", "body", None, "AutoModel"),
    Way("llama", "body", "lm", "CAUSAL_LM", "AutoModelForCausalLM"),
    Way("llama", "lm", "classes", "SEQ_CLS", CLASSES),
    Way("llama", "body", "classes", "SEQ_CLS", CLASSES),
    Way("llama", "lm", "tokens", "TOKEN_CLS", "AutoModelForTokenClassification"),
    Way("gpt2", "lm", "body", None, "AutoModel"),
    Way("gpt2", "body", "lm", "CAUSAL_LM", "AutoModelForCausalLM"),
    Way("bert", "masked", "body", None, "AutoModel"),
    Way("bert", "body", "classes", "SEQ_CLS", CLASSES),
    Way("bert", "classes", "classes", "SEQ_CLS", CLASSES),
    Way("roberta", "masked", "classes", "SEQ_CLS", CLASSES, (("num_labels", 5),)),
    Way("distilbert", "masked", "classes", "SEQ_CLS", CLASSES),
    Way("distilbert", "body", "spans", "QUESTION_ANS", "AutoModelForQuestionAnswering"),
)


def saved(way: Way, folder: Path, **changes: Any) -> BaseFacts:
    torch.manual_seed(5)
    AUTO[way.saved].from_config(CONFIGS[way.kind](**dict(way.base) | changes)).save_pretrained(
        folder
    )
    return replace(
        base_facts(*declared(files_of(folder))), repository="acme/tiny.v1", commit="0123456789" * 4
    )


def files_of(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def loaded(way: Way, folder: Path) -> Any:
    """The base as that class loads it; a head it does not bring is drawn anew each time, so from
    another seed each time.
    """
    torch.seed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AUTO[way.through].from_pretrained(folder).eval()


def answer(model: Any) -> Any:
    with torch.no_grad():
        found = model(input_ids=TOKENS)
    return next(
        found[key]
        for key in ("logits", "start_logits", "last_hidden_state")
        if found.get(key) is not None
    )


def trained(way: Way, base: Path, folder: Path, **more: Any) -> Any:
    """A genuine adapter, every trained number moved; and what it answers."""
    config = peft.LoraConfig(
        r=4, lora_alpha=8, task_type=way.task, target_modules=TARGETS[way.kind], **more
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(loaded(way, base), config)
        torch.manual_seed(11)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.1)
        model.save_pretrained(folder)
        return answer(model.eval())


@pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: f"{way.kind}-{way.saved}-{way.through}-{way.task}"
)
def test_it_is_accepted_served_as_it_was_trained_and_refused_elsewhere(
    way: Way, tmp_path: Path
) -> None:
    facts = saved(way, tmp_path / "base")
    answered = trained(way, tmp_path / "base", tmp_path / "adapter")
    files = files_of(tmp_path / "adapter")
    found = look("adapter", files, facts)
    assert found.defects == []
    assert found.facts["loads_as"] == way.loads_as
    fresh = (
        way.saved != way.through
        and way.task is not None
        and way.task not in ("CAUSAL_LM", "FEATURE_EXTRACTION")
    )
    assert found.facts.get("labels") == (dict(way.base).get("num_labels", 2) if fresh else None)
    assert found.rewritten is not None
    (tmp_path / "adapter" / FILE).write_bytes(found.rewritten)
    served = answer(
        peft.PeftModel.from_pretrained(loaded(way, tmp_path / "base"), tmp_path / "adapter").eval()
    )
    assert torch.equal(served, answered)
    assert look("adapter", files, saved(way, tmp_path / "wider", **WIDER[way.kind])).defects
    tensors = load(files[WEIGHTS])
    first = min(tensors)
    rest = {name: one for name, one in tensors.items() if name != first}
    for changed, where, rule in (
        (rest, first, "tensor-missing"),
        (
            {
                **rest,
                first: tensors[first][:, :-1].copy()
                if tensors[first].ndim > 1
                else tensors[first][:-1],
            },
            first,
            "tensor-shape",
        ),
    ):
        rules = {
            (one.where, one.rule)
            for one in look("adapter", files | {WEIGHTS: save(changed)}, facts).defects
        }
        assert (where, rule) in rules or ("", "labels-differ") in rules


@pytest.mark.parametrize(
    ("way", "rule", "more"),
    [
        (
            Way("llama", "body", "lm", "CAUSAL_LM", base=(("tie_word_embeddings", False),)),
            "head-unsaved",
            {},
        ),
        (Way("bert", "masked", "classes", "SEQ_CLS"), "head-unknown", {}),
        (Way("bert", "body", "masked", None), "head-unknown", {}),
        (Way("llama", "lm", "spans", "QUESTION_ANS"), "head-unknown", {}),
    ],
)
def test_a_head_that_nobody_has_is_random_and_so_refused(
    way: Way, rule: str, more: Any, tmp_path: Path
) -> None:
    facts = saved(way, tmp_path / "base")
    trained(way, tmp_path / "base", tmp_path / "adapter", **more)
    found = look("adapter", files_of(tmp_path / "adapter"), facts)
    assert {one.rule for one in found.defects} == {rule}
    assert {"with its head as the base" in one.fix for one in found.defects} == {True}


def test_an_untied_head_that_the_adapter_brings_is_no_riddle(tmp_path: Path) -> None:
    way = Way("llama", "body", "lm", "CAUSAL_LM", base=(("tie_word_embeddings", False),))
    facts = saved(way, tmp_path / "base")
    answered = trained(way, tmp_path / "base", tmp_path / "adapter", modules_to_save=["lm_head"])
    assert look("adapter", files_of(tmp_path / "adapter"), facts).defects == []
    served = answer(
        peft.PeftModel.from_pretrained(loaded(way, tmp_path / "base"), tmp_path / "adapter").eval()
    )
    assert torch.equal(served, answered)


def test_names_and_task_must_mean_the_same_class(tmp_path: Path) -> None:
    way = Way("llama", "lm", "body")
    facts = saved(way, tmp_path / "base")
    trained(way, tmp_path / "base", tmp_path / "adapter")
    files = files_of(tmp_path / "adapter")
    said = json.loads(files[FILE])
    for task in ("CAUSAL_LM", "SEQ_CLS"):
        found = look(
            "adapter", files | {FILE: json.dumps(said | {"task_type": task}).encode()}, facts
        )
        assert [(one.where, one.rule) for one in found.defects] == [("task_type", "task-at-odds")]
    fixed = said | {"task_type": "FEATURE_EXTRACTION"}
    assert look("adapter", files | {FILE: json.dumps(fixed).encode()}, facts).defects == []


def test_the_table_of_bodies_is_transformers_own() -> None:
    for kind, under in BODIES.items():
        names = (
            modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
            if kind in DECODERS
            else modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        )
        headed = getattr(transformers, names[kind])
        assert headed.base_model_prefix == under, kind
