"""Genuine adapters of every method: each is accepted on its base and on no other, and means the
same re-written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.numpy import load, save

from registry.artifacts.bundles.judge import BaseFacts, Inspected, base_facts, inspect
from registry.artifacts.methods import adapters
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.table import METHODS
from registry.client import Countersign, NewVersion
from tests.artifacts.bundle_files import Files, declared, look
from tests.trainer import peft_outputs
from tests.trainer.live import Live
from tests.trainer.peft_outputs import CASES, gpt2, llama, logits
from trainer import bottleneck, model

WEIGHTS = "adapter_model.safetensors"
COMMIT = "0123456789" * 4


@dataclass(frozen=True, slots=True)
class Written:
    """One genuine adapter: its files, how its model is made, and what that answers."""

    make: Callable[..., Any]
    folder: Path
    files: Files
    logits: Any


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Every case once: PEFT's, and our own bottleneck."""
    found = {}
    for name, case in CASES.items():
        folder = tmp_path_factory.mktemp(name)
        answers = peft_outputs.write(case(), folder)
        found[name] = Written(case().make, folder, _folder(folder), answers)
    for name, make, target, turned in (
        ("bottleneck", llama, "mlp.down_proj", False),
        ("bottleneck-conv1d", gpt2, "c_fc", True),
    ):
        folder = tmp_path_factory.mktemp(name)
        found[name] = Written(make, folder, *_bottleneck(make(), target, turned, folder))
    return found


def _bottleneck(net: Any, target: str, turned: bool, folder: Path) -> tuple[Files, Any]:
    config, defects = adapters.read_config(
        {
            "peft_type": "BOTTLENECK",
            "task_type": "CAUSAL_LM",
            "target_modules": [target],
            "bottleneck_size": 3,
            "layers_to_transform": [0, 2],
            "fan_in_fan_out": turned,
        }
    )
    assert config is not None, defects
    parts = bottleneck.attach(net, config, model.anatomy_of(net))
    assert len(parts) == 2
    with torch.no_grad():
        for part in parts.values():
            part.up.weight.normal_(std=0.2)
    bottleneck.save(parts, config, folder)
    return _folder(folder), logits(net)


def _folder(path: Path) -> Files:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


Based = Callable[..., BaseFacts]


@pytest.fixture(scope="module")
def based(tmp_path_factory: pytest.TempPathFactory) -> Based:
    """The facts of a base as it would be registered, by what it is made of; each is saved once."""
    known: dict[str, BaseFacts] = {}

    def facts(make: Callable[..., Any], **changes: Any) -> BaseFacts:
        key = f"{make.__name__} {changes}"
        if key not in known:
            folder = tmp_path_factory.mktemp("base")
            make(**changes).save_pretrained(folder)
            listed, read = declared(_folder(folder))
            known[key] = replace(base_facts(listed, read), repository="acme/tiny.v1", commit=COMMIT)
        return known[key]

    return facts


NAMES = [*CASES, "bottleneck", "bottleneck-conv1d"]


def rules(found: Inspected) -> set[tuple[str, str]]:
    return {(defect.where, defect.rule) for defect in found.defects}


def test_no_method_is_without_a_genuine_adapter(written: dict[str, Written]) -> None:
    assert {json.loads(one.files[FILE])["peft_type"] for one in written.values()} == set(METHODS)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_accepted_and_means_the_same_rewritten(
    name: str, written: dict[str, Written], based: Based, tmp_path: Path
) -> None:
    """Its configuration is ours now; loaded from it, the model gives the very same numbers."""
    one = written[name]
    found = look("adapter", one.files, based(one.make))
    assert found.defects == []
    assert found.facts["parameters"] == found.facts["trainable_parameters"] > 0
    assert found.rewritten is not None
    config = json.loads(found.rewritten)
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny.v1", COMMIT)
    again = look("adapter", one.files | {FILE: found.rewritten}, based(one.make))
    assert (again.rewritten, again.manifest_digest) == (None, found.manifest_digest)
    for path, data in (one.files | {FILE: found.rewritten}).items():
        (tmp_path / path).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        as_it_came, as_kept = (
            logits(model.adapted(one.make(), folder)) for folder in (one.folder, tmp_path)
        )
    if name in ("tied-embedding", "tied-head"):
        # PEFT computes a tied head from the embedding's adapter, in another order.
        assert torch.allclose(as_it_came, as_kept, atol=1e-5)
    else:
        assert torch.equal(as_it_came, as_kept)
    # What was converted or pruned sums in another order once it is loaded.
    assert torch.allclose(as_kept, one.logits, atol=1e-5)
    assert not torch.allclose(logits(one.make()), as_kept, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_on_a_base_that_was_altered(
    name: str, written: dict[str, Written], based: Based
) -> None:
    one = written[name]
    for changes in peft_outputs.ALTERED[one.make]:
        if name in ("lora-one-layer",) and "num_hidden_layers" in changes:
            continue  # it has nothing in the layer that is gone
        assert look("adapter", one.files, based(one.make, **changes)).defects, changes


@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_is_where_it_must_be_and_as_large(
    name: str, written: dict[str, Written], based: Based
) -> None:
    one = written[name]
    tensors = load(one.files[WEIGHTS])
    first = min(key for key in tensors if not key.endswith("base_layer.weight"))
    rest = {key: value for key, value in tensors.items() if key != first}
    wider = {**rest, first: tensors[first].repeat(2, axis=0)}
    facts = based(one.make)
    stranger = "base_model.model.stranger.lora_A.weight"
    if rest:
        assert rules(look("adapter", one.files | {WEIGHTS: save(rest)}, facts)) == {
            (first, "tensor-missing")
        }
    assert rules(
        look("adapter", one.files | {WEIGHTS: save({**tensors, stranger: tensors[first]})}, facts)
    ) == {(stranger, "tensor-unexpected")}
    # A whole embedding or head with more rows is the vocabulary of another base.
    whole = first in ("base_model.model.lm_head.weight", "base_model.model.embed_tokens.weight")
    larger = ("lm_head", "vocabulary-resized") if whole else (first, "tensor-shape")
    assert rules(look("adapter", one.files | {WEIGHTS: save(wider)}, facts)) == {larger}


def test_an_unconverted_start_is_refused_with_the_call_that_mends_it(
    tmp_path: Path, based: Based
) -> None:
    config = peft.LoraConfig(
        r=4, task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights="pissa"
    )
    peft_outputs.write(peft_outputs.Case(llama, config), tmp_path)
    [defect] = look("adapter", _folder(tmp_path), based(llama)).defects
    assert defect.rule == "init-unconverted"
    assert "path_initial_model_for_weight_conversion" in defect.fix


def test_another_base_of_the_same_shapes_is_another_base(
    written: dict[str, Written], based: Based, tmp_path: Path
) -> None:
    """One value changed: refused where the adapter or whoever adds it says what it was trained
    on.
    """
    one, true = written["lora"], based(llama)
    net = llama()
    with torch.no_grad():
        net.model.norm.weight[0] += 0.5
    net.save_pretrained(tmp_path)
    changed = base_facts(*declared(_folder(tmp_path)))
    assert changed.shapes == true.shapes
    assert changed.base_root != true.base_root
    assert rules(look("adapter", one.files, changed, base_root=true.base_root)) == {
        ("base", "base-mismatch")
    }
    kept = look("adapter", one.files, true).rewritten
    assert kept is not None
    listed, read = declared(one.files | {FILE: kept})
    named = inspect("adapter", listed, read, base=changed, meta={}).named_base
    assert named is not None
    assert [defect.rule for defect in named.defects([true.base_root])] == ["base-mismatch"]


def test_what_is_brought_of_an_embedding_is_a_high_risk_or_must_be_said(
    written: dict[str, Written], based: Based, tmp_path: Path
) -> None:
    """PEFT copies the embedding into the adapter when it is a target; of one that is none, the fix
    is what it says.
    """
    facts = look("adapter", written["lora-embedding"].files, based(llama)).facts
    assert facts["embeddings"] == ["lm_head", "model.embed_tokens"]
    assert (
        sum(
            risk.startswith("high: it brings a copy of the base's whole ")
            for risk in facts["risks"]
        )
        == 2
    )
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(llama(), config).save_pretrained(tmp_path, save_embedding_layers=True)
    files = _folder(tmp_path)
    found = look("adapter", files, based(llama))
    assert {(defect.rule, "modules_to_save" in defect.fix) for defect in found.defects} == {
        ("tensor-unexpected", True)
    }
    said = json.loads(files[FILE]) | {"modules_to_save": ["model.embed_tokens", "lm_head"]}
    assert look("adapter", files | {FILE: json.dumps(said).encode()}, based(llama)).defects == []


def test_a_text_that_would_be_run_is_refused_with_a_command_that_mends_it(
    tmp_path: Path, based: Based
) -> None:
    config = peft.LoraConfig(
        r=4,
        task_type="CAUSAL_LM",
        target_modules=r".*self_attn\.(q|v)_proj",
        exclude_modules=".*0.*q_proj",
    )
    peft_outputs.write(peft_outputs.Case(llama, config), tmp_path)
    found = look("adapter", _folder(tmp_path), based(llama))
    assert rules(found) == {("target_modules", "config-value"), ("exclude_modules", "config-value")}
    before = logits(peft.PeftModel.from_pretrained(llama(), tmp_path))
    command = found.defects[0].fix.partition('python -c "')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, timeout=100)
    assert look("adapter", _folder(tmp_path), based(llama)).defects == []
    assert torch.equal(logits(peft.PeftModel.from_pretrained(llama(), tmp_path)), before)


def test_a_base_may_be_published_without_its_outer_name(
    written: dict[str, Written], based: Based
) -> None:
    """GPT-2's own files say h.0, not transformer.h.0, and PEFT sees neither files nor that name but
    the loaded model.
    """
    facts = based(gpt2)
    bare = replace(
        facts,
        shapes={name.removeprefix("transformer."): shape for name, shape in facts.shapes.items()},
    )
    assert bare.shapes.keys().isdisjoint(facts.shapes)
    for name, one in written.items():
        if one.make is gpt2:
            assert look("adapter", one.files, bare).defects == [], name


def test_peft_refuses_to_load_what_only_we_can(written: dict[str, Written]) -> None:
    """In-process serving only: nobody mistakes a bottleneck for an adapter of PEFT's."""
    with pytest.raises(KeyError, match="BOTTLENECK"):
        peft.PeftModel.from_pretrained(llama(), written["bottleneck"].folder)


def test_peft_finds_the_base_by_itself_through_the_registry(
    written: dict[str, Written], live: Live, tmp_path: Path
) -> None:
    """AutoPeftModel pulls the adapter, and then the base by the line and commit that its
    configuration names.
    """
    llama().save_pretrained(tmp_path / "base")
    with Countersign(live.url, live.engineer) as registry:
        registry.add(
            "base",
            tmp_path / "base",
            NewVersion("acme/auto-base", meta={"licence": "Apache-2.0", "source": "made here"}),
        )
        added = registry.add(
            "adapter",
            _clean(written["dora"], tmp_path / "dora"),
            NewVersion(
                "acme/auto",
                base="acme/auto-base@v1",
                meta={"purpose": "sorting", "domain": "service"},
            ),
        )
        assert added.status == "registered"
    script = (
        "import torch, warnings; warnings.simplefilter('ignore')\nfrom peft import "
        "AutoPeftModelForCausalLM\n"
        "net = AutoPeftModelForCausalLM.from_pretrained('acme/auto').eval()\n"
        f"torch.save(net(input_ids=torch.tensor({peft_outputs.TOKENS.tolist()})).logits.detach(), "
        "'out.pt')"
    )
    env = {
        **os.environ,
        "HF_ENDPOINT": live.url,
        "HF_TOKEN": live.engineer,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answered = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.allclose(answered, written["dora"].logits, atol=1e-5)


def _clean(one: Written, into: Path) -> Path:
    into.mkdir()
    for path in (WEIGHTS, FILE):
        (into / path).write_bytes(one.files[path])
    return into
