"""Tiny random models of nearly every type: default configurations with every size made small."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from registry.artifacts.methods import loaded_names

VOCABULARY = 128
LAYERS = 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "embed_dim": 32,
    "out_hidden_size": 32,
    "projection_dim": 32,
    "encoder_hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "depth": LAYERS,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "moe_num_experts": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "image_size": 16,
    "patch_size": 4,
    "max_position_embeddings": 128,
    "sliding_window": 16,
    "num_position_embeddings": 16,
    "vision_feature_layer": -1,
    "decoder_sparse_step": 1,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "mm_tokens_per_image": 4,
    "n_embd": 32,
    "n_head": 4,
    "n_layer": LAYERS,
    "attention_head_dim": 8,
    "expert_ffn_hidden_size": 16,
    "ffn_hidden_size": 48,
    "num_decoder_layers": LAYERS,
    "decoder_num_hidden_layers": LAYERS,
    "encoder_num_hidden_layers": LAYERS,
    "base_channels": 32,
    "conv_dim": 16,
    "spatial_merge_size": 2,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MROPE = [1, 1, 2]
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": MROPE}
CHANGES: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "qwen2_vl": {"text_config": {"rope_parameters": ROPE}},
    "qwen2_5_vl": {"text_config": {"rope_parameters": ROPE}},
    "paddleocr_vl": {"text_config": {"rope_parameters": ROPE}},
    "glm4v_moe": {"text_config": {"rope_parameters": ROPE}},
    "deepseek_v2": {"topk_method": "greedy"},
}
"""Changes of single types, over the sizes above."""


LEFT_OUT = ("id2label", "label2id", "per_layer_config", "base_model_tp_plan", "base_model_pp_plan")
LARGEST = 20_000_000


def small(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    """A configuration as a dictionary with every known size made small, in its parts too."""
    made: dict[str, Any] = {}
    for key, value in config.items():
        if key in LEFT_OUT or not isinstance(key, str):
            continue
        if isinstance(value, dict):
            made[key] = small(value, f"{path}.{key}")
        elif key in SIZES and value is not None:
            made[key] = SIZES[key]
        elif key == "mrope_section":
            made[key] = MROPE
        elif key.endswith("layer_types") and isinstance(value, list):
            made[key] = sorted(set(value))[:LAYERS] + [value[-1]] * (LAYERS - len(set(value)))
        elif isinstance(value, list) and len(value) == config.get("num_hidden_layers"):
            made[key] = value[:LAYERS]
        elif key.endswith(("token_id", "token_index")) and isinstance(value, int) and value > 2:
            made[key] = 3 + sum(map(ord, key)) % 60 + 64
        else:
            made[key] = value
    if made.get("kv_lora_rank"):  # latent attention has as many keys as queries
        made["num_key_value_heads"] = made.get("num_attention_heads", 4)
    return made


def config_of(kind: str) -> Any:
    """The small configuration of a type of model."""
    config_class = CONFIG_MAPPING[kind]
    plain = config_class(**CHANGES.get(kind, {})).to_dict()
    drop = ("transformers_version", "architectures", "dtype", "torch_dtype")
    made = {key: value for key, value in small(plain).items() if key not in drop}
    return config_class(**_merged(made, CHANGES.get(kind, {})))


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return values | {
        key: _merged(values.get(key) or {}, change) if isinstance(change, dict) else change
        for key, change in changes.items()
    }


def saved(kind: str, auto: str, folder: Path) -> None:
    """A model of a type as an automatic class makes it, saved as transformers saves it."""
    torch.manual_seed(0)
    name = loaded_names.table()["types"][kind][auto]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model_class, config = getattr(transformers, name), config_of(kind)
        if not isinstance(config, model_class.config_class):
            config = config.get_text_config()
        with torch.device("meta"):
            size = sum(weight.numel() for weight in model_class(config).parameters())
        if size > LARGEST:
            raise ValueError(f"{kind} stays at {size} parameters")
        model = model_class(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.nan_to_num_(0.01)
        model.save_pretrained(folder)


def loaded(auto: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, auto).from_pretrained(folder).eval()


def logits(model: Any) -> Any:
    """What a model answers to a few tokens; an encoder gets what its kind of input is."""
    ids = torch.tensor([[7, 8, 9, 10, 11, 12]])
    with torch.no_grad():
        answer = model(input_ids=ids)
    return answer.logits
