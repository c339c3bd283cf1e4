"""Adapters on bases whose files have other names than the loaded models: genuine ones, by what they
do to the logits.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.core_model_loading import revert_weight_conversion

from registry.artifacts.bundles.judge import BaseFacts, base_facts
from registry.artifacts.methods import loaded_names
from registry.artifacts.methods.configs import FILE
from registry.artifacts.methods.heads import trained_view
from registry.artifacts.methods.loaded_names import GENERATORS, PREFIX
from registry.artifacts.methods.recipe_fits import fit_defects
from registry.client import Countersign, NewTrainingRun, NewVersion
from tests.artifacts.bundle_files import Files, declared, look
from tests.sampling import sampled
from tests.trainer import loaded_names as written
from tests.trainer import tiny_models as tiny
from tests.trainer.live import Live
from trainer import device, model
from trainer.demo import inputs
from trainer.worker import Worker

WEIGHTS = "adapter_model.safetensors"
TOWERS = ("vision", "visual", "audio", "lm_head")
USUAL = ("q_proj", "v_proj", "query_key_value", "qkv_proj", "o_proj", "in_proj", "out_proj")


def listed() -> list[tuple[str, str]]:
    """Every type and automatic class that writes text, of which the mapping renames anything."""
    types, classes = loaded_names.table()["types"], loaded_names.table()["classes"]
    pairs = []
    for kind, row in types.items():
        autos = {name: auto for auto, name in reversed(row.items()) if auto in GENERATORS}
        if any(key != "legacy" for name in autos for _, key in classes[name]["rules"]):
            pairs += [(kind, auto) for auto in autos.values()]
    return sorted(pairs)


FAMILIES = [
    ("qwen2_vl", "AutoModelForImageTextToText"),
    ("qwen2_5_vl", "AutoModelForImageTextToText"),
    ("gemma3", "AutoModelForCausalLM"),
    ("llava", "AutoModelForImageTextToText"),
    ("mistral3", "AutoModelForImageTextToText"),
    ("qwen3_5", "AutoModelForCausalLM"),
]


def files_of(folder: Path) -> Files:
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.suffix in (".json", ".safetensors") and file.name != "generation_config.json"
    }


class Trained:
    """A base as it was saved, and an adapter that PEFT wrote for it through one class."""

    def __init__(self, kind: str, auto: str, folder: Path) -> None:
        self.auto, self.base, self.adapter = auto, folder / "base", folder / "adapter"
        row = loaded_names.table()["types"][kind]
        saved_as = next(name for name in ("AutoModelForImageTextToText", auto) if name in row)
        tiny.saved(kind, saved_as, self.base)
        self.facts: BaseFacts = base_facts(*declared(files_of(self.base)))
        base = tiny.loaded(auto, self.base)
        self.loaded = loaded_names.loaded_class(type(base).__name__)
        self.plain = tiny.logits(base)
        linear = [
            name
            for name, module in base.named_modules()
            if isinstance(module, torch.nn.Linear) and not any(part in name for part in TOWERS)
        ]
        lasts = {name.rpartition(".")[2] for name in linear}
        targets = [name for name in USUAL if name in lasts][:2] or sorted(lasts)[:1]
        config = peft.LoraConfig(
            r=4,
            lora_alpha=64,
            target_modules=[name for name in linear if name.rpartition(".")[2] in targets],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(base, config)
            with torch.no_grad():
                for name, weight in wrapped.named_parameters():
                    if "lora_B" in name:
                        weight.normal_(0, 0.3)
            wrapped.save_pretrained(self.adapter)

    def effect(self, auto: str | None = None, folder: Path | None = None) -> float:
        """The largest change of any logit by the adapter."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = tiny.loaded(auto or self.auto, self.base)
            adapted = peft.PeftModel.from_pretrained(base, folder or self.adapter).eval()
            return float((tiny.logits(adapted) - self.plain).abs().max())

    def renamed(self, folder: Path) -> bool:
        """The same adapter under the names of the base's file; False where they are no others."""
        assert self.loaded is not None
        file_names = {here: name for name, here in self.loaded.placed(self.facts.shapes).items()}

        def older(module: str) -> str:
            return file_names.get(f"{module}.weight", f"{module}.weight").removesuffix(".weight")

        tensors = load_file(self.adapter / WEIGHTS)
        names = {}
        for name in tensors:
            module, _, last = name.removeprefix(PREFIX).partition(".lora_")
            names[name] = f"{PREFIX}{older(module)}.lora_{last}"
        shutil.copytree(self.adapter, folder)
        save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
        return any(name != other for name, other in names.items())


CANNOT: dict[tuple[str, str], str] = {
    # Known and open: the safe side, a working adapter under older names is refused.
    ("emu3", "AutoModelForImageTextToText"): "older names work by PEFT and are refused",
    ("video_llava", "AutoModelForImageTextToText"): "older names work by PEFT and are refused",
    ("qwen2_5_omni_thinker", "AutoModelForImageTextToText"): "its parts do not agree when small",
    (
        "aria",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "deepseek_ocr2",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "dots1",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "dots3_note",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "dots3_note",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "ernie4_5_vl_moe",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "glm5_next",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "granitemoehybrid",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "hunyuan_v1_moe",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "hunyuan_vl",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "inkling2",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "kyutai_speech_to_text",
        "AutoModelForMultimodalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "lfm2_moe",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "molmo2",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "nemo_speechlm",
        "AutoModelForMultimodalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "pp_chart2table",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    (
        "qwen3_omni_moe",
        "AutoModelForMultimodalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "qwen4_exp_text",
        "AutoModelForCausalLM",
    ): "its default configuration does not build it with small sizes",
    (
        "shieldgemma2",
        "AutoModelForImageTextToText",
    ): "its default configuration does not build it with small sizes",
    ("bailing_hybrid", "AutoModelForCausalLM"): "it answers to more than text",
    ("cohere_asr", "AutoModelForSpeechSeq2Seq"): "it answers to more than text",
    ("glm4v_moe", "AutoModelForImageTextToText"): "it answers to more than text",
    ("longcat_flash", "AutoModelForCausalLM"): "it answers to more than text",
    ("paddleocr_vl", "AutoModelForImageTextToText"): "it answers to more than text",
    ("pi0", "AutoModelForImageTextToText"): "it answers to more than text",
    ("t5gemma2", "AutoModelForImageTextToText"): "it answers to more than text",
    ("voxtral_realtime", "AutoModelForMultimodalLM"): "it answers to more than text",
    ("deepseek_v2", "AutoModelForCausalLM"): "its parts do not agree in small sizes",
    ("ernie4_5_moe", "AutoModelForCausalLM"): "its parts do not agree in small sizes",
    ("hrm_text", "AutoModelForCausalLM"): "its parts do not agree in small sizes",
    ("jamba", "AutoModelForCausalLM"): "its parts do not agree in small sizes",
    ("kimi_linear", "AutoModelForCausalLM"): "its parts do not agree in small sizes",
    ("step3p7", "AutoModelForImageTextToText"): "its parts do not agree in small sizes",
    (
        "vision-encoder-decoder",
        "AutoModelForImageTextToText",
    ): "its parts do not agree in small sizes",
    (
        "dots3_note_text",
        "AutoModelForCausalLM",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "granite_speech",
        "AutoModelForMultimodalLM",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "granite_speech_plus",
        "AutoModelForMultimodalLM",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "inkling_mm_model",
        "AutoModelForImageTextToText",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "nemotron_h_omni",
        "AutoModelForImageTextToText",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "qwen2_5_omni",
        "AutoModelForMultimodalLM",
    ): "it stays too large: sizes of its other parts have names of their own",
    (
        "vibevoice_asr",
        "AutoModelForMultimodalLM",
    ): "it stays too large: sizes of its other parts have names of their own",
    ("fast_vlm", "AutoModelForImageTextToText"): "its eyes are timm's, which is not installed",
    ("gemma3n", "AutoModelForCausalLM"): "its eyes are timm's, which is not installed",
    (
        "unlimited_ocr",
        "AutoModelForImageTextToText",
    ): "PEFT renames what it wrote itself: it does nothing and is refused",
    ("emu3", "AutoModelForCausalLM"): "no file of Emu3 has the names that class loads",
}
"""Classes that are not run, with the reason.

They cannot be made tiny by changing sizes alone, or answer to more than text. Their names and
shapes are compared in full size all the same.
"""


@pytest.mark.parametrize(
    ("kind", "auto"), sampled([pair for pair in listed() if pair not in CANNOT], FAMILIES)
)
def test_what_moves_the_logits_is_accepted_and_what_does_not_is_refused(
    kind: str, auto: str, tmp_path: Path
) -> None:
    trained = Trained(kind, auto, tmp_path)
    assert trained.effect() > 0
    inspected = look("adapter", files_of(trained.adapter), trained.facts)
    assert inspected.defects == []
    assert trained.effect(inspected.facts.get("loads_as")) > 0
    if not trained.renamed(tmp_path / "older"):
        return
    older = look("adapter", files_of(tmp_path / "older"), trained.facts)
    assert bool(older.defects) == (trained.effect(folder=tmp_path / "older") == 0)
    if not older.defects:
        assert older.facts["names"] == "older"


def test_older_names_are_said_once_with_a_way_out_that_works(tmp_path: Path) -> None:
    trained = Trained("qwen2_vl", "AutoModelForImageTextToText", tmp_path)
    assert trained.renamed(tmp_path / "older")
    [defect] = look("adapter", files_of(tmp_path / "older"), trained.facts).defects
    assert (defect.rule, defect.file) == ("names-older", WEIGHTS)
    assert "Qwen2VLForConditionalGeneration" in defect.detail
    command = defect.fix.partition("python -c ")[2]
    subprocess.run(f"{sys.executable} -c {command}", shell=True, cwd=tmp_path / "older", check=True)
    inspected = look("adapter", files_of(tmp_path / "older"), trained.facts)
    assert inspected.defects == []
    assert trained.effect(folder=tmp_path / "older") == trained.effect()


def test_the_language_model_alone_and_the_whole_model_are_two_classes(tmp_path: Path) -> None:
    """An adapter of one is silent on the other, and says which it needs."""
    trained = Trained("qwen3_5", "AutoModelForCausalLM", tmp_path)
    facts = look("adapter", files_of(trained.adapter), trained.facts).facts
    assert (facts["loads_as"], facts["model_class"]) == (
        "AutoModelForCausalLM",
        "Qwen3_5ForCausalLM",
    )
    config = json.loads((trained.adapter / FILE).read_text())
    config["target_modules"] = ["q_proj", "v_proj"]
    (trained.adapter / FILE).write_text(json.dumps(config))
    assert trained.effect("AutoModelForImageTextToText") == 0


@pytest.mark.parametrize("kind", ["qwen2_vl", "gemma3", "llava", "qwen3_5"])
def test_a_recipes_fit_is_known_from_the_files(kind: str, tmp_path: Path) -> None:
    tiny.saved(kind, "AutoModelForImageTextToText", tmp_path)
    facts = base_facts(*declared(files_of(tmp_path)))

    def rules(targets: list[str], layers: tuple[int, int] | None = None) -> list[str]:
        return [
            defect.rule
            for defect in fit_defects(
                trained_view(facts.shapes, facts.config).body, targets, layers
            )
        ]

    assert rules(["q_proj", "v_proj"], (0, 1)) == []
    assert rules(["q_proj"], (1, 2)) == ["layers-beyond-base"]
    assert rules(["c_attn"]) == ["targets-missing"]
    assert rules(["patch_embedding"]) == ["targets-missing"]


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_vl"])
def test_the_trainers_own_run_on_a_model_that_sees_ends_registered_and_evaluated(
    kind: str, live: Live, nora: Countersign, base: Path, tmp_path: Path
) -> None:
    words = len(json.loads((base / "tokenizer.json").read_text())["model"]["vocab"])
    assert words <= tiny.VOCABULARY
    tiny.saved(kind, "AutoModelForImageTextToText", tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).exists():
            shutil.copyfile(base / name, tmp_path / "base" / name)
    (tmp_path / "base" / "generation_config.json").unlink(missing_ok=True)
    line = f"acme/sees-{kind.replace('_', '-')}"
    registered = nora.add("base", tmp_path / "base", NewVersion(line, meta=inputs.TINY_BASE_META))
    recipe = {
        "steps": 2,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "max_length": 48,
        "rank": 4,
        "targets": ["q_proj", "v_proj"],
        "layers": [0, 1],
    }
    run = nora.train(
        NewTrainingRun(
            f"{line}-letters",
            registered.ref,
            "acme/letters@v1",
            recipe,
            "service",
            {"purpose": "sorting"},
        )
    )
    with Countersign(live.url, live.trainer) as registry, Worker(registry, tmp_path / "w") as made:
        made.run(0.1, once=True)
    ended = nora.training_run(run.id)
    assert (ended.error, ended.state) == (None, "succeeded")
    version = nora.version(ended.outputs[-1])
    assert version.facts.get("loads_as") is None
    nora.pull(version.ref, tmp_path / "pulled")
    cpu = device.choose("float32")
    pulled = tmp_path / "pulled"
    adapted = model.adapted(model.load_base(tmp_path / "base", cpu, pulled), pulled)
    changed = (tiny.logits(adapted) - tiny.logits(model.load_base(tmp_path / "base", cpu))).abs()
    assert float(changed.max()) > 0


@pytest.mark.slow
def test_the_table_is_what_the_installed_transformers_says() -> None:
    assert written.FILE.read_text(encoding="utf-8") == written.text(written.table())


def test_the_table_is_of_this_release_and_its_rows_of_the_sample_are_fresh() -> None:
    kinds = ("qwen2_vl", "gemma3", "llava", "qwen3_5", "gpt_neox", "mixtral")
    content, fresh = loaded_names.table(), written.table(lambda kind: kind in kinds)
    assert content["transformers"] == fresh["transformers"]
    for part in ("rules", "classes", "types"):
        assert fresh[part].items() <= content[part].items()


@pytest.mark.parametrize(("kind", "auto"), sampled(listed(), FAMILIES))
def test_names_and_shapes_are_those_of_the_loaded_model(kind: str, auto: str) -> None:
    """Of every listed class in its full size, without its memory: its file by transformers'
    own reversal of the mapping, and what it loads.
    """
    name = loaded_names.table()["types"][kind][auto]
    if name in loaded_names.table()["unbuilt"] or kind in NOT_COMPARED:
        assert name in loaded_names.table()["unbuilt"] or NOT_COMPARED[kind]
        return
    built = written.built(kind, name)
    tied = set(getattr(built, "all_tied_weights_keys", None) or ())
    tensors = {name: weight for name, weight in built.state_dict().items() if name not in tied}
    file = revert_weight_conversion(built, dict(tensors))
    loaded = loaded_names.loaded_class(name)
    assert loaded is not None
    assert loaded.loaded(
        {name: tuple(weight.shape) for name, weight in file.items()},
        whole=True,
        single_experts=False,
    ) == {name: tuple(weight.shape) for name, weight in tensors.items()}


NOT_COMPARED = {
    "ernie4_5_vl_moe": "its experts of text and of images are split by sizes of config.json",
    "pp_chart2table": "its class needs a config that its automatic class does not make alone",
    "shieldgemma2": "its class needs a config that its automatic class does not make alone",
    "molmo2": "its queries, keys and values are split by sizes of config.json",
}
