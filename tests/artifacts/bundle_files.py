"""Bundles in memory, as plain functions: a tiny base model, an adapter for it, and the store that
holds their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import save

from registry.artifacts.bundles.judge import BaseFacts, File, Inspected, Kind, base_facts, inspect
from registry.documents.canonical import sha256_hex

Files = dict[str, bytes]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "rms_norm_eps": 1e-06,
    "hidden_size": 8,
}
# What PEFT 0.21.2 writes for LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
# key by key.
LORA: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 8,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["v_proj", "q_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}


def base_arrays() -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "model.embed_tokens.weight": np.zeros((16, 8), np.float32)
    }
    for layer in (0, 1):
        arrays[f"model.layers.{layer}.self_attn.q_proj.weight"] = np.full((8, 8), layer, np.float32)
        arrays[f"model.layers.{layer}.self_attn.v_proj.weight"] = np.full((4, 8), layer, np.float32)
        arrays[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(8, np.float32)
    return arrays


def base_files() -> Files:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": save(base_arrays(), metadata={"format": "pt"}),
        "tokenizer.json": b'{"model":{"vocab":{}}}',
        "chat_template.jinja": b"{{ messages }}",
        "README.md": "# Grüße".encode(),
    }


def lora_arrays(rank: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {}
    for layer in (0, 1):
        for name, out in (("q_proj", 8), ("v_proj", 4)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            arrays[f"{stem}.lora_A.weight"] = np.full((rank, 8), 0.25, np.float32)
            arrays[f"{stem}.lora_B.weight"] = np.full((out, rank), 0.5, np.float32)
    return arrays


def adapter_files(arrays: dict[str, np.ndarray[Any, Any]] | None = None, **changes: Any) -> Files:
    return {
        "adapter_config.json": json.dumps(LORA | changes).encode(),
        "adapter_model.safetensors": save(lora_arrays() if arrays is None else arrays),
    }


STORE: dict[str, bytes] = {}
"""Every file that a test declared, as one store: an adapter's judge reads its base too."""


def declared(files: Files) -> tuple[list[File], Callable[[str, int, int], bytes]]:
    STORE.update((sha256_hex(content), content) for content in files.values())
    return (
        [File(path, sha256_hex(content), len(content)) for path, content in files.items()],
        lambda digest, start, length: STORE[digest][start : start + length],
    )


def look(kind: Kind, files: Files, base: BaseFacts | None = None, **meta: Any) -> Inspected:
    listed, read = declared(files)
    return inspect(kind, listed, read, base=base, meta=meta)


def broken(found: Inspected) -> list[tuple[str, str]]:
    return [(defect.file, defect.rule) for defect in found.defects]


def tiny_base() -> BaseFacts:
    listed, read = declared(base_files())
    return base_facts(listed, read)
