"""The output folders of training tools: what each of them writes around a real tiny adapter.

PEFT, TRL and transformers' Trainer write theirs themselves. The files of LLaMA-Factory, Axolotl,
Unsloth and ms-swift, which are not installed, are written by hand as these tools leave them.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from safetensors.torch import save_file

from tests.artifacts.tokenizers.families import as_release_4, qwen2

TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OTHER_TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
"""What LLaMA-Factory's `template: default` makes of the tokenizer's own."""
UNSLOTH_TARGETS = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))"
)
MESSAGES = [
    {"role": "user", "content": "licence of this notice"},
    {"role": "assistant", "content": "mit"},
]


def write_base(folder: Path) -> Path:
    """A random Qwen2 with its tokenizer in the files that transformers 4 wrote to the Hub."""
    _older_tokenizer(folder)
    torch.manual_seed(1)
    settings = transformers.Qwen2Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    with _quiet():
        transformers.Qwen2ForCausalLM(settings).save_pretrained(folder)
    return folder


def peft_alone(base: Path, out: Path) -> Path:
    """`save_pretrained` of PEFT, and nothing else."""
    _adapter(base, out)
    return out


def trainer(base: Path, out: Path) -> Path:
    """transformers' own Trainer on a PEFT model: its last save point, to go on training from."""
    with _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        row = tokenizer("licence of this notice is mit")
        settings = transformers.TrainingArguments(
            output_dir=str(out),
            max_steps=2,
            save_steps=1,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            report_to="none",
            use_cpu=True,
        )
        transformers.Trainer(
            peft.get_peft_model(_model(base), _config()),
            settings,
            train_dataset=[{**row, "labels": row["input_ids"]}] * 4,
            processing_class=tokenizer,
        ).train()
    return out / "checkpoint-2"


def trl(base: Path, out: Path) -> Path:
    """TRL's SFTTrainer: the adapter in the root, and its save points in it."""
    with _quiet():
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        settings = SFTConfig(
            output_dir=str(out),
            max_steps=2,
            save_steps=1,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            bf16=False,
            report_to="none",
            use_cpu=True,
            max_length=64,
        )
        sft = SFTTrainer(
            model=str(base),
            args=settings,
            train_dataset=Dataset.from_list([{"messages": MESSAGES}] * 4),
            peft_config=peft.LoraConfig(
                r=2, target_modules="all-linear", task_type="CAUSAL_LM", lora_alpha=4
            ),
        )
        sft.train()
        sft.save_model(str(out))
    return out


def llama_factory(base: Path, out: Path) -> Path:
    """`llamafactory-cli train` for SFT: results, curves and logs beside the adapter."""
    _adapter(base, out)
    _tokenizer(base, out, padding_side="right", split_special_tokens=False)
    _card(out, "library_name: peft", "license: other", "tags:", "- llama-factory", "- lora")
    _json(out, "all_results.json", {"epoch": 3.0, "train_loss": 0.9, "train_runtime": 5.1})
    _json(out, "train_results.json", {"epoch": 3.0, "train_loss": 0.9})
    _json(out, "trainer_state.json", {"best_metric": None, "global_step": 2, "log_history": []})
    (out / "trainer_log.jsonl").write_text('{"current_steps": 1, "total_steps": 2}\n')
    (out / "training_loss.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (out / "training_args.yaml").write_text("finetuning_type: lora\n")
    (out / "running_log.txt").write_text("[INFO] Num examples = 8\n")
    torch.save({"output_dir": str(out)}, out / "training_args.bin")
    _save_point(out, "checkpoint-2")
    return out


def llama_factory_own_template(base: Path, out: Path) -> Path:
    """The same with a template that LLaMA-Factory writes over the tokenizer's own."""
    llama_factory(base, out)
    (out / "chat_template.jinja").write_text(OTHER_TEMPLATE)
    return out


def llama_factory_reward(base: Path, out: Path) -> Path:
    """Its reward model on transformers 4: the value head is in a file of its own."""
    _adapter(base, out)
    _older_tokenizer(out, padding_side="right", extra_special_tokens={})
    head = {"v_head.summary.weight": torch.ones(1, 32), "v_head.summary.bias": torch.ones(1)}
    save_file(head, out / "value_head.safetensors", {"format": "pt"})
    _json(out, "all_results.json", {"epoch": 3.0})
    (out / "training_rewards_accuracies.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    _save_point(out, "checkpoint-2")
    return out


def axolotl(base: Path, out: Path) -> Path:
    """An Axolotl run that ended before its last save: the adapters are in its save points.

    The root has the base's settings and the tokenizer. The run was on DeepSpeed, whose state stands
    in folders of the save points.
    """
    _adapter(base, out)
    _tokenizer(base, out)
    for step in (1195, 2390):
        point = _save_point(out, f"checkpoint-{step}")
        _json(point, "tokens_state.json", {"total": 4096, "trainable": 512})
        state = point / f"global_step{step}"
        state.mkdir()
        torch.save({}, state / "mp_rank_00_model_states.pt")
        torch.save({}, state / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
        (point / "latest").write_text(state.name)
        (point / "zero_to_fp32.py").write_text("print('merges the state of ZeRO')\n")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (out / name).unlink()
    shutil.copy(base / "config.json", out)
    _card(out, "library_name: peft", "license: apache-2.0", "tags:", "- axolotl")
    (out / "debug.log").write_text("[INFO] Starting trainer...\n")
    return out


def axolotl_merged(base: Path, out: Path) -> Path:
    """A finished run of Axolotl after `axolotl merge-lora`: the whole model is in `merged`."""
    with _quiet():
        model = _adapter(base, out)
        model.merge_and_unload().save_pretrained(out / "merged")
    _tokenizer(base, out)
    _tokenizer(base, out / "merged")
    _save_point(out, "checkpoint-2390")
    shutil.copy(base / "config.json", out)
    return out


def unsloth(base: Path, out: Path) -> Path:
    """Unsloth's `save_pretrained`: trained on its own copy of the base in four bits."""
    _adapter(base, out, target_modules=UNSLOTH_TARGETS)
    _tokenizer(base, out, model_max_length=2048, padding_side="left", pad_token="<|vision_pad|>")
    config = json.loads((out / "adapter_config.json").read_text())
    config |= {
        "base_model_name_or_path": "unsloth/qwen2.5-0.5b-instruct-unsloth-bnb-4bit",
        "auto_mapping": {
            "base_model_class": "Qwen2ForCausalLM",
            "parent_library": "transformers.models.qwen2.modeling_qwen2",
            "unsloth_fixed": True,
        },
    }
    _json(out, "adapter_config.json", config)
    _card(out, "base_model: unsloth/qwen2.5-0.5b-instruct-unsloth-bnb-4bit", "tags:", "- unsloth")
    return out


def unsloth_new_padding(base: Path, out: Path) -> Path:
    """The same for a base in which Unsloth sees no token to pad with: it adds one."""
    _adapter(base, out)
    _tokenizer(base, out, pad_token="<|PAD_TOKEN|>", model_max_length=2048)
    return out


def ms_swift(base: Path, out: Path) -> Path:
    """`swift sft`: a folder a run inside of `output_dir`, and the adapter in its save points."""
    run = out / "v0-20261130-080000"
    point = run / "checkpoint-10"
    _adapter(base, point)
    _resumable(point)
    _json(point, "additional_config.json", {"lora_dtype": None, "lorap_lr_ratio": None})
    for folder in (run, point):
        _json(folder, "args.json", {"model": "Qwen/Qwen2.5-0.5B-Instruct", "tuner_type": "lora"})
    (run / "logging.jsonl").write_text('{"loss": 0.9, "global_step/max_steps": "1/2"}\n')
    (run / "val_dataset.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n")
    for name in ("runs/events.out.tfevents.1", "images/train_loss.png"):
        (run / name).parent.mkdir()
        (run / name).write_bytes(b"\0")
    return out


def _model(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base)


def _config(**changes: Any) -> Any:
    named = {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 4, "task_type": "CAUSAL_LM"}
    return peft.LoraConfig(r=2, **{**named, **changes})


def _adapter(base: Path, out: Path, **changes: Any) -> Any:
    """An adapter as PEFT saves it, with its model card, whose B is no longer zero."""
    with _quiet():
        model = peft.get_peft_model(_model(base), _config(**changes))
        torch.manual_seed(3)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.05)
        model.save_pretrained(out)
    return model


def _tokenizer(base: Path, out: Path, **changes: Any) -> None:
    """The base's tokenizer as transformers 5 writes it, with what a tool changes."""
    transformers.AutoTokenizer.from_pretrained(base, **changes).save_pretrained(out)


def _save_point(out: Path, name: str) -> Path:
    """A save point inside: the files of the root so far, and what training goes on from."""
    point = out / name
    files = [path for path in out.iterdir() if path.is_file()]
    point.mkdir()
    for path in files:
        shutil.copy(path, point)
    _resumable(point)
    return point


def _resumable(point: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({}, point / name)
    _json(point, "trainer_state.json", {"global_step": 2, "log_history": []})


def _older_tokenizer(out: Path, **changes: Any) -> None:
    """The tokenizer in every file that transformers 4 wrote."""
    tokenizer, config = qwen2()
    folder = out / "older"
    as_release_4(tokenizer, {**config, "chat_template": TEMPLATE, **changes}, folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    _json(out, "vocab.json", model["vocab"])
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"], ""]))
    added = tokenizer.get_added_tokens_decoder().items()
    _json(out, "added_tokens.json", {token.content: number for number, token in added})
    for file in folder.iterdir():
        file.rename(out / file.name)
    folder.rmdir()


def _card(out: Path, *front: str) -> None:
    lines = ["---", *front, "---", "", "# Adapter", ""]
    (out / "README.md").write_text("\n".join(lines))


def _json(folder: Path, name: str, document: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(document, indent=2))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the tools print and warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
