"""A base in memory with any number of adapters on it, one of them answering at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from registry.errors import BundleRejected, Invalid, NotFound, RegistryError
from registry.rules import evals
from trainer import data, evaluate, model
from trainer.device import Device


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion; `reason` is stop (the model ended it) or length (the limit did)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter in memory: its folder, and its slot, because PEFT allows no dots in a name."""

    path: Path
    slot: str
    since: int = field(default_factory=lambda: int(time.time()))


class Resident:
    """One base and its adapters.

    It is not thread-safe: which adapter is active is a state of the whole model.
    """

    def __init__(self, ref: str, folder: Path, device: Device, allowed: Path) -> None:
        self.ref = ref
        self.folder = folder
        self.since = int(time.time())
        self.adapters: dict[str, Loaded] = {}
        self._allowed = allowed.resolve()
        self._tokenizer = model.load_tokenizer(folder)
        self._net = model.load_base(folder, device)
        self._body = model.anatomy_of(self._net)
        self._class = model.class_of(self._net)
        self._slots = count()
        self.window = int(
            getattr(self._net.config.get_text_config(), "max_position_embeddings", 1 << 20)
        )

    def load(self, name: str, path: str, *, in_place: bool = False) -> None:
        """Load the adapter in a folder under a name; `in_place` replaces a loaded one.

        Raises NotFound `path-missing`, Invalid `path-outside`, `adapter-loaded`, `bad-adapter`.
        """
        if name == self.ref or (name in self.adapters and not in_place):
            raise Invalid("adapter-loaded", f"'{name}' has already been loaded.")
        folder = Path(path).resolve()
        if not folder.is_relative_to(self._allowed):
            raise Invalid("path-outside", f"The path is not inside {self._allowed}.")
        if not folder.is_dir():
            raise NotFound("path-missing", f"There is no folder {path}.")
        try:
            config = model.check_fit(folder, self._body, self._class)
        except BundleRejected as error:
            raise Invalid(
                "bad-adapter",
                f"The adapter does not fit {self.ref}: {error.defects[0].detail}.",
                "Use it with the base it was trained on.",
            ) from error
        except (OSError, SafetensorError, RegistryError) as error:
            raise Invalid(
                "bad-adapter", f"The folder holds no sound adapter: {error}.", "Pull it again."
            ) from error
        if config.method.name != "lora" or config.values["bias"] != "none":
            # Biases would overwrite the base's for every other name, and PEFT combines a prompt
            # with no other adapter.
            what = "bias" if config.method.name == "lora" else config.method.name
            raise Invalid(
                "bad-adapter",
                f"This engine serves LoRA without biases, not {what}.",
                "Evaluate it with a suite. To serve it, use transformers and PEFT.",
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
        """Unload an adapter and free its memory. Raises NotFound `adapter-missing`."""
        if name not in self.adapters:
            raise NotFound("adapter-missing", f"The adapter '{name}' is not loaded.")
        unloaded = self.adapters[name]
        self.adapters = {other: loaded for other, loaded in self.adapters.items() if other != name}
        self._free(unloaded)

    def _free(self, unloaded: Loaded) -> None:
        """Free an adapter's memory.

        PEFT cannot delete the active adapter, so another is activated first; with none left, PEFT
        itself is taken off the base.
        """
        if self.adapters:
            self._net.set_adapter(next(iter(self.adapters.values())).slot)
            self._net.delete_adapter(unloaded.slot)
        else:
            self._net = self._net.unload()

    def read(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """A text unchanged, or messages through the chat template, as token ids."""
        if isinstance(prompt, str):
            return data.prompt_ids(self._tokenizer, prompt, "plain")
        return data.ids_of(self._tokenizer, data.render(self._tokenizer, prompt))

    def answer(
        self, name: str, prompt: str | list[dict[str, str]], limit: int, stop: Sequence[str] = ()
    ) -> Answer:
        """The greedy continuation by the base or one adapter, of at most `limit` tokens.

        It ends before the first of the texts in `stop`.

        Raises NotFound `model-missing` for a name that is not loaded, Invalid `empty-prompt`, and
        Invalid `too-long` beyond the base's window.
        """
        if name != self.ref and name not in self.adapters:
            raise NotFound("model-missing", f"The model '{name}' does not exist.")
        ids = self.read(prompt)
        if not ids:
            raise Invalid("empty-prompt", "The prompt has no token.")
        if len(ids) + limit > self.window:
            raise Invalid(
                "too-long",
                f"The prompt has {len(ids)} tokens and {limit} more are requested, but the model "
                f"reads at most {self.window}.",
            )
        stop = [text for text in stop if text]
        config = evaluate.generation(self._net, self._tokenizer, limit)
        tokens = torch.tensor([ids], device=self._net.device)
        options: dict[str, Any] = {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "generation_config": config,
            "stopping_criteria": evaluate.at_stops(self._tokenizer, len(ids), stop),
        }
        with torch.inference_mode():
            if name in self.adapters:
                self._net.set_adapter(self.adapters[name].slot)
                generated = self._net.generate(**options)
            elif isinstance(self._net, PeftModel):
                with self._net.disable_adapter():
                    generated = self._net.generate(**options)
            else:
                generated = self._net.generate(**options)
        written = generated[0, len(ids) :].tolist()
        ended = bool(written) and written[-1] in config.eos_token_id
        reason = "stop" if ended else "length"
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        answer = evals.cut(text, stop)
        return Answer(answer, len(ids), len(written), "stop" if answer != text else reason)
