"""Whether a suite can be asked of a version, from their files and before it waits for a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.artifacts.bundles.texts import documents_of
from registry.artifacts.tokenizers import prompts
from registry.artifacts.tokenizers.prompts import Question, capital
from registry.artifacts.weights.tensors import File, Read


def problem(
    files: Sequence[File], decoding: Mapping[str, Any], prompt: str, read: Read
) -> str | None:
    """Why these files cannot be asked the first prompt of a suite; None if they can.

    `files` are those of the model whose tokenizer is used. The answer contains a way out.
    Raises Unavailable without a sandbox, Unverified when stored bytes are not there.
    """
    documents = documents_of(files, read)
    if prompts.lacks_end(documents):
        return f"{capital(prompts.NO_END)}."
    if decoding["template"] != "chat":
        return None
    trial = prompts.tried(documents, Question(prompt, None, decoding["system"]))
    if trial.unfit is None:
        return None
    other = " or without --system" if decoding["system"] is not None else ""
    way_out = trial.way_out(f"freeze a suite with --template plain{other}")
    return f"{capital(trial.unfit)}. {way_out}."
