"""peft and transformers load through the real server: the same logits as from a folder, and a stop
at what was withdrawn.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.artifacts.weights.tensors import File
from registry.client import Countersign, NewVersion, Origin
from registry.commands import recalls, rollouts, tokens, versions
from registry.errors import BundleRejected
from registry.rules.actors import SYSTEM
from registry.rules.refs import commit, repository
from tests.api.conftest import Door
from tests.assets.pieces import trained
from tests.build import ADAPTER_META, BASE_META, World, a_person, a_world, approved, put, register
from tests.hub.conftest import Session, get

MAKE = """
import json, os, torch
from pathlib import Path
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trainer.demo.inputs import tiny_base

torch.manual_seed(7)
base = tiny_base(Path("made"))
ids = torch.tensor([[2, 5, 7, 11, 3]])

def logits(model):
    with torch.no_grad():
        return [round(one, 4) for one in model(ids).logits[0, -1].tolist()]

# The second version of the base: the same shapes, other weights.
second = AutoModelForCausalLM.from_pretrained(base)
for value in second.parameters():
    torch.nn.init.normal_(value, std=0.05)
second.save_pretrained("made/second")
AutoTokenizer.from_pretrained(base).save_pretrained("made/second")
bases = {"v1": base, "v2": Path("made/second")}

def on(number, name):
    model = AutoModelForCausalLM.from_pretrained(bases[number])
    return logits(PeftModel.from_pretrained(model, f"made/{name}").eval())

local = {"base": logits(AutoModelForCausalLM.from_pretrained(base))}
for name in ("v1", "v2", "v3", "v4", "v5"):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for key, value in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=1.0)
    local[name] = logits(model.eval())
    model.save_pretrained(f"made/{name}")
local["v5"] = on("v2", "v5")  # it stands on the second base
wrong = [on("v2", name) for name in ("v1", "v2", "v3", "v4")] + [on("v1", "v5")]
assert len({str(one) for one in (*local.values(), *wrong)}) == 11

def failure(call):
    try:
        call()
    except Exception as error:
        said = str(error)
        while (error := error.__cause__ or error.__context__) is not None:
            said += " / " + str(error)  # peft says only that it can't find the file
        return said
    return "loaded"
out = None
"""


class Loader:
    """The process that loads, and the line it loads from."""

    def __init__(self, door: Door, folder: Path) -> None:
        self.door, self.folder = door, folder
        self.world: World = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
        self.session = Session(
            door.url, folder, os.pathsep.join(sys.path)
        )  # one process: torch is read in once

    @property
    def line(self) -> str:
        return f"{self.world.team}/adapter"

    def run(self, script: str) -> Any:
        return self.session.run(script, self.door.token(self.world.engineer))

    def made(self, name: str, **config: Any) -> list[File]:
        """The files of a folder it made, published; `config` goes into an adapter's
        configuration.
        """
        found = []
        for path in sorted((self.folder / "made" / name).iterdir()):
            data = path.read_bytes()
            if path.name == "adapter_config.json":
                data = json.dumps({**json.loads(data), **config}).encode()
            found.append(put(self.door.blobs, path.name, data))
        return found


@pytest.fixture(scope="module")
def loader(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """v2 is stable in production, v4 approved for it; v1 and v3 are merely registered. All stand on
    team/llama@v1. team/llama has a second version of the same shapes, on which v5 stands.
    """
    one = Loader(door, tmp_path_factory.mktemp("loader"))
    try:
        one.run(MAKE)
        world, engineer = one.world, one.world.engineer.actor
        draft = versions.Draft("base", f"{world.team}/llama", one.made("tiny-llama"), BASE_META)
        world.base = register(door.store, door.blobs, engineer, draft)
        stands = {
            "base_model_name_or_path": repository(world.base.ref),
            "revision": commit(world.base.digest),
        }
        for first, second in (("v1", "v2"), ("v3", "v4")):
            approved(
                world,
                files=lambda step, names=(first, second): one.made(names[step // 4], **stands),
            )
        draft = versions.Draft("base", f"{world.team}/llama", one.made("second"), BASE_META)
        newer = register(door.store, door.blobs, engineer, draft)
        assert newer.ref == f"{world.team}/llama@v2"
        draft = versions.Draft("adapter", one.line, one.made("v5"), ADAPTER_META, newer.ref)
        assert register(door.store, door.blobs, engineer, draft).ref == f"{one.line}@v5"
        rollouts.start(
            door.store,
            engineer,
            rollouts.Canary(f"{one.line}@v2", "production", None, 500, "first traffic"),
        )
        rollouts.promote(
            door.store, engineer, rollouts.Place(one.line, "production", None), "it went well"
        )
        one.run(f"NAME, BASE = {one.line!r}, {world.team + '/llama'!r}")
        yield one
    finally:
        one.session.close()


def test_loaded_by_name_is_loaded_from_a_folder(door: Door, loader: Loader) -> None:
    sha = get(
        door, door.token(loader.world.engineer), f"/api/models/{loader.line}/revision/v2"
    ).json()["sha"]
    loader.run(f"""
plain = AutoModelForCausalLM.from_pretrained(BASE, revision="v1")
assert logits(plain) == local["base"]
assert AutoConfig.from_pretrained(BASE, revision="v1").hidden_size == plain.config.hidden_size
words = "please route this letter to the answer"
assert AutoTokenizer.from_pretrained(BASE)(words) == AutoTokenizer.from_pretrained(base)(words)
def by(revision):
    model = AutoModelForCausalLM.from_pretrained(BASE, revision="v1")
    return logits(PeftModel.from_pretrained(model, NAME, revision=revision).eval())
for revision, name in (("v1", "v1"), ("production", "v2"), ("v2", "v2"), ({sha!r}, "v2"),
                       (None, "v2"), ("v3", "v3")):
    assert by(revision) == local[name], revision
""")


WAYS = """
from transformers import pipeline

def added(revision):
    model = AutoModelForCausalLM.from_pretrained(BASE + ".v1")
    model.load_adapter(NAME, adapter_kwargs={"revision": revision})
    return model

AUTO, AUTO_PEFT = AutoModelForCausalLM.from_pretrained, AutoPeftModelForCausalLM.from_pretrained
revised = lambda revision: {"adapter_kwargs": {"revision": revision}}
ways = {
    "auto": lambda: AUTO(NAME),
    "auto adapter_kwargs v1": lambda: AUTO(NAME, **revised("v1")),
    "auto adapter_kwargs v5": lambda: AUTO(NAME, **revised("v5")),
    "auto adapter_kwargs production": lambda: AUTO(NAME, **revised("production")),
    "auto revision v1": lambda: AUTO(NAME, revision="v1"),
    "auto revision v2": lambda: AUTO(NAME, revision="v2"),
    "auto revision v5": lambda: AUTO(NAME, revision="v5"),
    "auto revision production": lambda: AUTO(NAME, revision="production"),
    "auto one-version v3": lambda: AUTO(NAME + ".v3"),
    "auto one-version v5": lambda: AUTO(NAME + ".v5"),
    "auto-peft": lambda: AUTO_PEFT(NAME),
    "auto-peft v1": lambda: AUTO_PEFT(NAME, revision="v1"),
    "auto-peft v5": lambda: AUTO_PEFT(NAME, revision="v5"),
    "auto-peft production": lambda: AUTO_PEFT(NAME, revision="production"),
    "auto-peft one-version v3": lambda: AUTO_PEFT(NAME + ".v3"),
    "auto-peft one-version v5": lambda: AUTO_PEFT(NAME + ".v5"),
    "load_adapter v3": lambda: added("v3"),
    "load_adapter production": lambda: added("production"),
    "pipeline": lambda: pipeline("text-generation", model=NAME).model,
    "pipeline revision v1": lambda: pipeline("text-generation", model=NAME, revision="v1").model,
    "pipeline revision v2": lambda: pipeline("text-generation", model=NAME, revision="v2").model,
    "pipeline revision v5": lambda: pipeline("text-generation", model=NAME, revision="v5").model,
    "pipeline revision production":
        lambda: pipeline("text-generation", model=NAME, revision="production").model,
    "pipeline one-version v3": lambda: pipeline("text-generation", model=NAME + ".v3").model,
    "pipeline one-version v5": lambda: pipeline("text-generation", model=NAME + ".v5").model,
}

def which(way):
    try:
        model = ways[way]()
    except Exception as error:
        return "refused: " + failure(lambda: (_ for _ in ()).throw(error))
    answered = logits(model.eval())
    return next((name for name, right in local.items() if right == answered), "WRONG")
out = {way: which(way) for way in ways}
"""


RIGHT = {
    "auto": "v2",  # stable in production
    "auto adapter_kwargs v1": "v1",
    "auto adapter_kwargs v5": "v5",
    "auto adapter_kwargs production": "v2",
    "auto revision v1": "v1",  # the base happens to have the same number
    "auto one-version v3": "v3",
    "auto one-version v5": "v5",
    "auto-peft": "v2",
    "auto-peft v1": "v1",
    "auto-peft v5": "v5",
    "auto-peft production": "v2",
    "auto-peft one-version v3": "v3",
    "auto-peft one-version v5": "v5",
    "load_adapter v3": "v3",
    "load_adapter production": "v2",
    "pipeline": "v2",
    "pipeline revision v1": "v1",
    "pipeline one-version v3": "v3",
    "pipeline one-version v5": "v5",
}
REFUSED = [
    f"{call} revision {name}"
    for call in ("auto", "pipeline")
    for name in ("v2", "v5", "production")
]


def test_every_call_puts_an_adapter_on_the_base_it_is_bound_to(loader: Loader) -> None:
    """By logits, with two versions of the base and adapters on each: right, or refused in words."""
    loaded = loader.run(WAYS)
    assert set(loaded) == {*RIGHT, *REFUSED}
    assert {way: loaded[way] for way in RIGHT} == RIGHT
    for way in REFUSED:
        # transformers gives `revision` to the repository of the base, which has one version.
        assert loaded[way].startswith("refused: "), (way, loaded[way])
        assert "alone; if you load an adapter, give adapter_kwargs=" in loaded[way], way


def test_an_adapter_that_was_pulled_and_trained_on_comes_back(door: Door, loader: Loader) -> None:
    """What PEFT then writes names the one version that it stands on."""
    config = loader.run("""
tuned = AutoPeftModelForCausalLM.from_pretrained(NAME, revision="v1", is_trainable=True)
for key, value in tuned.named_parameters():
    if "lora_B" in key:
        torch.nn.init.normal_(value, std=2.0)
tuned.save_pretrained("made/tuned")
out = json.loads(Path("made/tuned/adapter_config.json").read_text())""")
    world = loader.world
    assert config["base_model_name_or_path"] == f"{world.team}/llama.v1"
    meta = {**ADAPTER_META, "domain": "legal"}
    for number, registered in ((2, False), (1, True)):
        draft = versions.Draft(
            "adapter",
            f"{world.team}/tuned",
            loader.made("tuned"),
            meta,
            f"{world.team}/llama@v{number}",
        )
        if registered:
            assert register(door.store, door.blobs, world.engineer.actor, draft).ref
            continue
        with pytest.raises(BundleRejected) as refusal:
            register(door.store, door.blobs, world.engineer.actor, draft)
        assert [defect.rule for defect in refusal.value.defects] == ["base-mismatch"]
        assert f"{world.team}/llama.v1" in refusal.value.defects[0].detail
    assert loader.run(f"""
there = AutoModelForCausalLM.from_pretrained({world.team + "/tuned"!r})
out = logits(there.eval()) == logits(tuned.eval())""")


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BYTES: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "vocab_size": 400,
    "normalization_rule_name": "identity",
}
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("tokenizer.model", BYTES, {"tokenizer_class": "LlamaTokenizer", **SPECIAL}),
    "gemma": (
        "tokenizer.model",
        {
            **BYTES,
            "pad_id": 0,
            "eos_id": 1,
            "bos_id": 2,
            "unk_id": 3,
            "bos_piece": "<bos>",
            "eos_piece": "<eos>",
        },
        {"tokenizer_class": "GemmaTokenizer"},
    ),
    "t5": (
        "spiece.model",
        {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        {"tokenizer_class": "T5Tokenizer", "extra_ids": 0},
    ),
    "xlm-roberta": ("sentencepiece.bpe.model", {}, {"tokenizer_class": "XLMRobertaTokenizer"}),
}
"""Families whose snapshots may have no tokenizer.json, only SentencePiece's model: its name, how it
is trained, its settings.
"""
SAID = [
    "please route this letter",
    "water damage in 2024: ﬁrst café, 漢字!",
    "  two  blanks\n<s> x</s>",
]
SAVE = """
from transformers import AutoModel
sizes = dict(vocab_size=600, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
             num_attention_heads=2, num_key_value_heads=2, head_dim=8, d_model=16, d_ff=32,
             d_kv=8, num_layers=1, num_decoder_layers=1, num_heads=2)
for family in {families!r}:
    AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(f"made/{{family}}")

def read(where):
    tokenizer, model = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where).eval()
    ids = [tokenizer(one)["input_ids"] for one in {said!r}]
    with torch.no_grad():
        more = {{"decoder_input_ids": ids_of(ids[0])}} if model.config.is_encoder_decoder else {{}}
        last = model(ids_of(ids[0]), **more).last_hidden_state
    return ids, [tokenizer.decode(one) for one in ids], last.flatten().tolist()

ids_of = lambda ids: torch.tensor([ids])
"""


def test_a_base_whose_tokenizer_is_a_sentencepiece_model_is_imported_and_loads_alike(
    door: Door, loader: Loader
) -> None:
    loader.run(SAVE.format(families=list(FAMILIES), said=SAID))
    with Countersign(door.url, door.token(loader.world.engineer)) as registry:
        for family, (name, options, config) in FAMILIES.items():
            folder = loader.folder / "made" / family
            (folder / name).write_bytes(trained(**options))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "consolidated.safetensors").write_bytes(b"x")
            (folder / "original").mkdir()
            added = registry.import_bundle(
                "base",
                Origin(folder),
                NewVersion(f"{loader.world.team}/pieces-{family}", meta=BASE_META),
            )
            assert added.status == "registered"
            assert {one.path for one in added.left_out} == {"consolidated.safetensors", "original"}
            assert {one.path for one in registry.version(added.ref).files} >= {
                name,
                "tokenizer_config.json",
            }
            ids, texts, _ = loader.run(f"""
here, there = read("made/{family}"), read({added.ref.partition("@")[0]!r})
assert here == there
out = here""")
            assert len({str(one) for one in ids}) == len(SAID)
            assert SAID[0] in texts[0]


def test_a_channel_that_moves_is_followed_at_the_next_load(door: Door, loader: Loader) -> None:
    store, engineer, line = door.store, loader.world.engineer.actor, loader.line

    def serves() -> Any:
        return loader.run('out = next(name for name in local if local[name] == by("production"))')

    assert serves() == "v2"
    rollouts.start(
        store, engineer, rollouts.Canary(f"{line}@v4", "production", None, 500, "the next")
    )
    assert serves() == "v2"  # a candidate is no revision of its own
    rollouts.promote(store, engineer, rollouts.Place(line, "production", None), "it went well")
    assert serves() == "v4"
    rollouts.roll_back(store, engineer, rollouts.Place(line, "production", None), "it did not")
    assert serves() == "v2"


def test_withdrawn_is_withdrawn_with_a_warm_cache(door: Door, loader: Loader) -> None:
    store, engineer, line = door.store, loader.world.engineer.actor, loader.line
    gateway = a_person(store, "gateway", team=loader.world.team, signs=False)
    secret = str(
        tokens.create(
            store,
            SYSTEM,
            tokens.TokenRequest(gateway.actor.name, ["gateway"], loader.world.team, 1),
        ).token
    )
    script = """
ways = lambda name, **more: [failure(call) for call in (
    lambda: PeftModel.from_pretrained(plain, NAME, revision=name, **more),
    lambda: AutoPeftModelForCausalLM.from_pretrained(NAME, revision=name, **more),
    lambda: AutoModelForCausalLM.from_pretrained(
        NAME, adapter_kwargs={"revision": name, **more}, **more))]
"""
    loader.run(script)
    # Never approved: the cache has it, for an engineer loaded it before; a gateway's token stops.
    for said in loader.run(f"out = ways('v3', token={secret!r})"):
        assert "not approved for any environment" in said
    recalls.recall(store, engineer, f"{line}@v2", "it leaks names")
    for name in ("v2", "refs/tags/v2"):
        for said in loader.run(f"out = ways({name!r})"):
            assert "it leaks names" in said
    # The channel fell back to the base, and says so: an adapter's line has nothing to give there.
    assert "serves the base model" in loader.run('out = failure(lambda: by("production"))')
    assert loader.run('out = by("v4") == local["v4"]') is True
    recalls.recall(store, engineer, loader.world.base.ref, "its licence ended")
    withdrawn = loader.run("""out = [failure(call) for call in (
        lambda: AutoModelForCausalLM.from_pretrained(BASE, revision="v1"),
        lambda: AutoTokenizer.from_pretrained(BASE + ".v1"),
        lambda: AutoModelForCausalLM.from_pretrained(BASE + ".v1"),
        lambda: AutoModelForCausalLM.from_pretrained(NAME + ".v4"),
        lambda: AutoPeftModelForCausalLM.from_pretrained(NAME, revision="v4"),
        lambda: AutoConfig.from_pretrained(BASE, revision="v1"),
        lambda: PeftModel.from_pretrained(plain, NAME, revision="v4"))]""")
    for said in withdrawn:
        assert "its licence ended" in said
    # The newer base, and what stands on it, are as they were.
    assert loader.run("""
newer = AutoModelForCausalLM.from_pretrained(NAME, adapter_kwargs={"revision": "v5"})
out = logits(newer.eval()) == local["v5"]""")
