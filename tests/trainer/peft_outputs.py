"""What PEFT itself writes for every method, on tiny random models: Llama's Linear, GPT-2's Conv1D,
Mixtral's experts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers

LLAMA: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
GPT2: dict[str, Any] = {
    "vocab_size": 48,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def llama(**changes: Any) -> Any:
    """The tiny Llama; every call gives the same weights, and biases that are not zero where it has
    any.
    """
    return _random(transformers.LlamaForCausalLM, transformers.LlamaConfig(**LLAMA | changes))


def gpt2(**changes: Any) -> Any:
    return _random(transformers.GPT2LMHeadModel, transformers.GPT2Config(**GPT2 | changes))


def mixtral(**changes: Any) -> Any:
    """Transformers 5 loads its experts in two parameters a layer, and saves them one by one."""
    return _random(
        transformers.MixtralForCausalLM,
        transformers.MixtralConfig(num_local_experts=3, **LLAMA | changes),
    )


ALTERED: dict[Any, tuple[dict[str, Any], ...]] = {
    llama: ({"hidden_size": 24, "head_dim": 6, "intermediate_size": 32}, {"num_hidden_layers": 2}),
    mixtral: (
        {"hidden_size": 24, "head_dim": 6, "intermediate_size": 32},
        {"num_hidden_layers": 2},
    ),
    gpt2: ({"n_embd": 24}, {"n_layer": 2}),
}
"""Other bases of each kind, which no adapter of it fits."""


def _random(kind: Any, config: Any) -> Any:
    torch.manual_seed(5)
    return kind(config).eval()


@dataclass(frozen=True, slots=True)
class Case:
    """One adapter: on which model, PEFT's configuration, and how its training is stood in for."""

    make: Callable[..., Any]
    config: Any
    through: str = "plain"


def _lora(*targets: str, **more: Any) -> Any:
    return peft.LoraConfig(
        r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=list(targets), **more
    )


ADALORA = {
    "task_type": "CAUSAL_LM",
    "total_step": 10,
    "tinit": 1,
    "tfinal": 2,
    "init_r": 6,
    "target_r": 4,
    "lora_alpha": 8,
}
CASES: dict[str, Callable[[], Case]] = {
    "lora": lambda: Case(llama, _lora("q_proj", "down_proj")),
    "lora-layers": lambda: Case(
        llama, _lora("k_proj", layers_to_transform=[1, 2], lora_dropout=0.1)
    ),
    "lora-one-layer": lambda: Case(llama, _lora("self_attn.k_proj", layers_to_transform=0)),
    "lora-named": lambda: Case(
        llama, _lora("model.layers.0.mlp.up_proj", "v_proj", layers_to_transform=[2])
    ),
    "rslora": lambda: Case(llama, _lora("q_proj", use_rslora=True)),
    "dora": lambda: Case(llama, _lora("q_proj", "v_proj", use_dora=True)),
    "lora-conv1d": lambda: Case(gpt2, _lora("c_attn", "mlp.c_proj", fan_in_fan_out=True)),
    "lora-conv1d-unsaid": lambda: Case(gpt2, _lora("c_attn", "lm_head"), "lean"),
    "dora-conv1d": lambda: Case(gpt2, _lora("c_attn", fan_in_fan_out=True, use_dora=True)),
    "lora-patterns": lambda: Case(
        llama,
        _lora(
            "q_proj",
            "v_proj",
            rank_pattern={"layers.1.self_attn.q_proj": 2, "v_proj": 3},
            alpha_pattern={"v_proj": 5},
        ),
    ),
    "lora-bias-all": lambda: Case(gpt2, _lora("c_attn", bias="all", fan_in_fan_out=True)),
    "lora-bias-only": lambda: Case(gpt2, _lora("c_attn", bias="lora_only", fan_in_fan_out=True)),
    "lora-modules": lambda: Case(llama, _lora("q_proj", modules_to_save=["lm_head", "model.norm"])),
    "lora-modules-conv1d": lambda: Case(
        gpt2, _lora("c_attn", "c_fc", modules_to_save=["h.2.mlp"], fan_in_fan_out=True)
    ),
    "lora-excluded": lambda: Case(
        llama, _lora("q_proj", "v_proj", exclude_modules=["layers.0.self_attn.q_proj"])
    ),
    "lora-under": lambda: Case(
        gpt2, _lora("c_attn", layers_to_transform=[2], layers_pattern="h", fan_in_fan_out=True)
    ),
    "lora-on-biases": lambda: Case(llama, _lora("q_proj", lora_bias=True)),
    "lora-tokens": lambda: Case(llama, _lora("q_proj", trainable_token_indices=[5, 1])),
    "lora-embedding": lambda: Case(llama, _lora("embed_tokens", "lm_head", "q_proj")),
    "tied": lambda: Case(llama, _lora("q_proj", ensure_weight_tying=True)),
    "tied-embedding": lambda: Case(
        llama, _lora("embed_tokens", "q_proj", ensure_weight_tying=True)
    ),
    "tied-head": lambda: Case(llama, _lora("lm_head", "q_proj", ensure_weight_tying=True)),
    "tied-saved": lambda: Case(
        llama, _lora("q_proj", modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    ),
    "tied-saved-head": lambda: Case(
        llama, _lora("q_proj", modules_to_save=["lm_head"], ensure_weight_tying=True)
    ),
    "tied-tokens": lambda: Case(
        llama, _lora("q_proj", trainable_token_indices=[5, 1], ensure_weight_tying=True)
    ),
    "alora": lambda: Case(llama, _lora("q_proj", alora_invocation_tokens=[4, 1])),
    "mica": lambda: Case(llama, _lora("q_proj", init_lora_weights="mica")),
    # PEFT makes parameters of the names that transformers 4 had, and a pattern of its own.
    "lora-experts": lambda: Case(mixtral, _lora("q_proj", "w1", "w2", "w3")),
    "lora-parameter": lambda: Case(mixtral, _lora(target_parameters=["mlp.experts.down_proj"])),
    "pissa": lambda: Case(llama, _lora("q_proj", init_lora_weights="pissa"), "converted"),
    "pissa-rslora": lambda: Case(
        llama, _lora("q_proj", init_lora_weights="pissa_niter_4", use_rslora=True), "converted"
    ),
    "adalora": lambda: Case(
        llama, peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], **ADALORA)
    ),
    "adalora-pruned": lambda: Case(
        llama, peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], **ADALORA), "pruned"
    ),
    "adalora-conv1d": lambda: Case(
        gpt2, peft.AdaLoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, **ADALORA)
    ),
    "prefix": lambda: Case(
        llama, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ),
    "prefix-projected": lambda: Case(
        gpt2,
        peft.PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=3,
            prefix_projection=True,
            encoder_hidden_size=8,
        ),
    ),
    "prompt": lambda: Case(
        llama, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ),
    "prompt-conv1d": lambda: Case(
        gpt2,
        peft.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=2, prompt_tuning_init="SAMPLE_VOCAB"
        ),
    ),
    "beft": lambda: Case(llama, peft.BeftConfig(task_type="CAUSAL_LM", target_modules=["v_proj"])),
    "ia3": lambda: Case(
        llama,
        peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        ),
    ),
    "ia3-defaults": lambda: Case(llama, peft.IA3Config(task_type="CAUSAL_LM")),
    "ia3-conv1d": lambda: Case(
        gpt2,
        peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["c_attn", "mlp.c_proj"],
            feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True,
        ),
    ),
    "norm": lambda: Case(
        llama,
        peft.LNTuningConfig(
            task_type="CAUSAL_LM", target_modules=["input_layernorm", "model.norm"]
        ),
    ),
    "norm-conv1d": lambda: Case(
        gpt2, peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["ln_1", "ln_f"])
    ),
}


def write(case: Case, folder: Path) -> Any:
    """Train it as far as that is needed (every trained number moved), save it as PEFT saves, and
    give its logits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(case.make(), case.config)
        if case.through == "converted":
            model.save_pretrained(folder / "start")
        if case.through == "pruned":
            _prune(model)
        else:
            _move(model)
        more: dict[str, Any] = {}
        if case.through == "converted":
            more["path_initial_model_for_weight_conversion"] = str(folder / "start")
        if case.through == "lean":
            more["save_embedding_layers"] = False
        model.save_pretrained(folder, **more)
        return logits(model)


def _move(model: Any) -> None:
    torch.manual_seed(11)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)


def _prune(model: Any) -> None:
    """AdaLoRA's own schedule to its end: ten real steps, its ranks cut from six to four a matrix on
    average.
    """
    torch.manual_seed(11)
    optimiser = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=0.05
    )
    for step in range(1, 11):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimiser.step()
        model.base_model.update_and_allocate(step)
        optimiser.zero_grad()


def logits(model: Any) -> Any:
    with torch.no_grad():
        # A prompt's virtual tokens answer too; only the text's own are compared.
        return model.eval()(input_ids=TOKENS).logits[:, -TOKENS.shape[1] :]
