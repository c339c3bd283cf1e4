"""A base in memory with any number of adapters on it, one of them answering at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from registry.errors import BundleRejected, Invalid, NotFound, RegistryError
from trainer import data, evaluate, model
from trainer.device import Device


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion; `reason` is stop (the model ended it) or length (it was cut)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter in memory: the folder it came from, and its slot, for PEFT takes no dots in a
    name.
    """

    path: Path
    slot: str
    since: int = field(default_factory=lambda: int(time.time()))


class Resident:
    """Not for two threads at once: which adapter is on is a state of the whole model."""

    def __init__(self, ref: str, folder: Path, device: Device, allowed: Path) -> None:
        self.ref = ref
        self.folder = folder
        self.since = int(time.time())
        self.adapters: dict[str, Loaded] = {}
        self._allowed = allowed.resolve()
        self._tokenizer = model.load_tokenizer(folder)
        self._net = model.load_base(folder, device)
        self._body = model.anatomy_of(self._net)
        self._slots = count()
        self.window = int(getattr(self._net.config, "max_position_embeddings", 1 << 20))

    def load(self, name: str, path: str, *, in_place: bool = False) -> None:
        """Put an adapter's folder under a name; with `in_place` the name may be taken, and changes
        its weights.

        Raises NotFound (`path-missing`), Invalid (`path-outside`, `adapter-loaded`, `bad-adapter`).
        """
        if name == self.ref or (name in self.adapters and not in_place):
            raise Invalid(
                "adapter-loaded",
                f"'{name}' has already been loaded.",
            )
        folder = Path(path).resolve()
        if not folder.is_relative_to(self._allowed):
            raise Invalid(
                "path-outside",
                "Adapters are loaded from under the allowed folder only.",
            )
        if not folder.is_dir():
            raise NotFound("path-missing", f"There is no folder {path}.")
        try:
            config = model.check_fit(folder, self._body)
        except BundleRejected as error:
            raise Invalid(
                "bad-adapter",
                f"It is no adapter for {self.ref}: {error.defects[0].detail}.",
                "Use it with the base it was trained on.",
            ) from error
        except (OSError, SafetensorError, RegistryError) as error:
            raise Invalid(
                "bad-adapter", f"The folder holds no sound adapter: {error}.", "Pull it again."
            ) from error
        if config.method.name != "lora" or config.values["bias"] != "none":
            # Its biases would overwrite the base's for every other name; prompts stand beside no
            # other adapter.
            what = "bias" if config.method.name == "lora" else config.method.name
            raise Invalid(
                "bad-adapter",
                f"This engine serves LoRA without biases, not {what}.",
                "Evaluate it by a suite; to serve it, use transformers and PEFT.",
            )
        slot = f"slot{next(self._slots)}"
        if isinstance(self._net, PeftModel):
            self._net.load_adapter(str(folder), slot, local_files_only=True)
        else:
            self._net = PeftModel.from_pretrained(self._net, folder, slot, local_files_only=True)
        self._net.eval()
        before = self.adapters.get(name)
        self.adapters = {**self.adapters, name: Loaded(folder, slot)}
        if before is not None:
            self._free(before)

    def unload(self, name: str) -> None:
        """Drop an adapter and its memory; NotFound when it is not there."""
        if name not in self.adapters:
            raise NotFound("adapter-missing", f"The adapter '{name}' is not loaded.")
        loaded = self.adapters[name]
        self.adapters = {other: one for other, one in self.adapters.items() if other != name}
        self._free(loaded)

    def _free(self, gone: Loaded) -> None:
        """Give an adapter's memory back; PEFT cannot lose the one that is on, so another is put on,
        or none is left.
        """
        if self.adapters:
            self._net.set_adapter(next(iter(self.adapters.values())).slot)
            self._net.delete_adapter(gone.slot)
        else:
            self._net = self._net.unload()

    def read(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """A text as it stands, or messages through the chat template, as token ids."""
        if isinstance(prompt, str):
            return data.prompt_ids(self._tokenizer, prompt, "plain")
        text = data.render(self._tokenizer, prompt)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def answer(self, name: str, prompt: str | list[dict[str, str]], most: int) -> Answer:
        """The greedy continuation by the base or one adapter, at most `most` tokens.

        Raises NotFound (`model-missing`) for a name that is not loaded, Invalid (`too-long`) past
        the base's window.
        """
        if name != self.ref and name not in self.adapters:
            raise NotFound("model-missing", f"The model '{name}' does not exist.")
        ids = self.read(prompt)
        if not ids:
            raise Invalid("empty-prompt", "The prompt has no token.")
        if len(ids) + most > self.window:
            raise Invalid(
                "too-long",
                f"The model reads {self.window} tokens at most; {len(ids)} were sent and {most} "
                "asked for.",
            )
        config = evaluate.generation(self._net, self._tokenizer, most)
        tokens = torch.tensor([ids], device=self._net.device)
        ask: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "generation_config": config,
        }
        with torch.inference_mode():
            if name in self.adapters:
                self._net.set_adapter(self.adapters[name].slot)
                made = self._net.generate(**ask)
            elif isinstance(self._net, PeftModel):
                with self._net.disable_adapter():
                    made = self._net.generate(**ask)
            else:
                made = self._net.generate(**ask)
        written = made[0, len(ids) :].tolist()
        ends = (
            config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        )
        reason = "stop" if written and written[-1] in ends else "length"
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Answer(text, len(ids), len(written), reason)
