"""Pages of docs/ that are written by code: `make docs` writes them, a test holds them fresh.

A page joins by an entry in PAGES: its file name in docs/, and the function that returns its text.
A part of a page joins by an entry in BLOCKS and a pair of comments around it.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from textwrap import fill
from types import ModuleType
from typing import Any

import registry
import trainer
from registry.api.problems import STATUSES
from registry.artifacts.bundles.judge import REQUIRED_META
from registry.artifacts.datasets.rows import UNREAD
from registry.artifacts.feasibility.extremes import MAX_SCANNED_BYTES
from registry.cli.errors import EXITS
from registry.errors import BundleRejected, RegistryError, catalogue
from registry.gateway.problems import STATUSES as GATEWAY_STATUSES
from registry.rules.recipes import FIELDS
from registry.settings import PREFIX, Settings
from trainer.demo import figures, transcript

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WIDTH = 120
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

DEFAULTS = {
    "blob_url": "`private/blobs` in the home",
    "log_key_file": "`private/log.key` in the home",
    "migrate_database_url": f"`{PREFIX}DATABASE_URL`",
    "sequencer_database_url": f"`{PREFIX}DATABASE_URL`",
}
"""What stands for the default of a setting that follows from others."""

OTHER_VARIABLES = {
    "COUNTERSIGN_URL": (
        "command line, Python client, trainers, engines, gateways",
        "The registry's address. The command line falls back to what `countersign login` stored.",
    ),
    "COUNTERSIGN_TOKEN": (
        "the same",
        "The token to send. A stored token is only sent to the registry it was stored for.",
    ),
    "COUNTERSIGN_CONFIG_DIR": (
        "command line",
        "Where `countersign login` and `key enroll` store things; `~/.config/countersign` by "
        "default.",
    ),
    "COUNTERSIGN_VERIFY_KEY": (
        "`countersign-verify`",
        "The log's public key or a file with it, when `--key` is not given.",
    ),
    "COUNTERSIGN_ENGINE_BASE": (
        "`python -m trainer engine`",
        "The base to load, when `--base` is not given; else the base of the first route in "
        "production.",
    ),
    "COUNTERSIGN_MLFLOW_URL": (
        "trainers too",
        "The MLflow server to log training runs to; without it, a trainer takes the registry's.",
    ),
    "COUNTERSIGN_HOME": (
        "trainers, engines and `countersign-verify` too",
        "Where a worker keeps its files; where the verifier looks for the pinned `log.pub`.",
    ),
    "COUNTERSIGN_TRACEBACK": (
        "command line",
        "Set to anything, an unexpected fault prints its traceback.",
    ),
    "NO_COLOR": ("command line", "Set to anything, nothing is coloured."),
    "MLFLOW_TRACKING_URI": (
        "`import mlflow:...`",
        "The MLflow server to import from; with `MLFLOW_TRACKING_TOKEN`, or "
        "`MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.",
    ),
    "AWS_*, GOOGLE_*, AZURE_*": (
        "registry",
        "Credentials of the object store that `COUNTERSIGN_BLOB_URL` names.",
    ),
    "DEMO_BASE, DEMO_HOME, DEMO_PORT, DEMO_EXIT": (
        "`make demo`",
        "`tiny` for the random model; where it keeps things; its first port; `1` to stop at the "
        "end.",
    ),
}
"""Variables that are not settings of the service: who reads each, and what it means."""


def problems() -> str:
    """docs/problems.md, from the catalogue and the doors' tables of statuses."""
    return "\n".join(_problems())


def _problems() -> Iterator[str]:
    yield "# Problems\n"
    yield _paragraph(
        "Every way Countersign says no. An answer carries a *kind* (the headings below), a "
        "title, what happened and why, and what to do. REST and the gateway answer "
        "`application/problem+json` with `type` `/problems/<kind>`, where a running registry "
        "explains the kind. The command line prints three lines, or with `--json` the same "
        "object on stderr, and ends with the exit status of the kind's *family*."
    )
    yield _paragraph(
        "Refusals (families *refused*, *forbidden*, *rejected* and *unverified*) are kept in "
        "the audit log; wrong input and things not found leave no trace. `make docs` writes "
        "this page from `registry/problems.toml`; the code can raise nothing that is not listed "
        "there. [countersign-verify.md](countersign-verify.md) explains what the offline "
        "verifier says."
    )
    yield "## Families\n"
    yield "| Family | Meaning | Exit status | HTTP | Gateway |"
    yield "|---|---|---|---|---|"
    for cls in _families():
        meaning = (cls.__doc__ or "").partition(".")[0].partition(";")[0]
        exit_status, http, gateway = (
            EXITS[cls.family][0],
            STATUSES[cls.family],
            GATEWAY_STATUSES[cls.family],
        )
        yield f"| {cls.family} | {' '.join(meaning.split())} | {exit_status} | {http} | {gateway} |"
    yield "\n`unavailable` comes with `Retry-After`.\n"
    for subject, entries in groupby(catalogue().values(), lambda entry: entry.subject):
        yield f"## {subject}\n"
        for entry in entries:
            yield f"### {entry.kind}"
            yield f"*{entry.title}* ({entry.family})\n"
            yield _paragraph(f"{entry.meaning} {entry.fix}")


def _families() -> Iterator[type[RegistryError]]:
    yield from sorted(RegistryError.__subclasses__(), key=lambda cls: EXITS[cls.family][0])
    assert BundleRejected in RegistryError.__subclasses__()


def _paragraph(text: str) -> str:
    # A line that began with these would be a list or a quotation.
    wrapped = fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    assert not any(line.startswith(("- ", "+ ", "* ", "> ", "#")) for line in wrapped.splitlines())
    return wrapped + "\n"


def settings() -> str:
    """docs/settings.md, from the fields of the settings and the table above."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    others = [
        f"| `{name}` | {reader} | {meaning} |".replace(", DEMO", "`, `DEMO").replace(
            "_*, ", "_*`, `"
        )
        for name, (reader, meaning) in OTHER_VARIABLES.items()
    ]
    return "\n".join(
        [
            "# Settings\n",
            "`countersign up` needs none of these. The service reads each from the environment, or "
            "from a file of the same\nname in lower case under `/run/secrets`; use files for "
            "passwords. The environment has precedence over files, and an\noption of the command "
            "line over both. A wrong value is refused at the start, by name.\n",
            "| Variable | Default | Meaning |",
            "|---|---|---|",
            *rows,
            "\n## Other variables\n",
            "| Variable | Read by | Meaning |",
            "|---|---|---|",
            *others,
            "\n`make docs` writes this page from `registry/settings.py`.\n",
        ]
    )


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if name in DEFAULTS:
        return DEFAULTS[name]
    return "none" if field.default is None else f"`{field.default}`"


def demo() -> str:
    """docs/demo.md, from the committed result of a demo."""
    return transcript.page(_result())


def _result() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((DOCS / "demo-result.json").read_text(encoding="utf-8"))
    return result


def rooms() -> str:
    """The folders of the registry, from its docstring; its other files, from theirs."""
    return _table(_listed(registry)) + "\n" + _table(_files())


def programs() -> str:
    """The files of the trainer, from its docstring."""
    return _table(_listed(trainer))


def floors() -> str:
    """The layers of the registry, from the import contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["name"] == "Floors of the registry"
    ]
    return "```text\n" + "\n".join(contract["layers"]) + "\n```\n"


def _listed(package: ModuleType) -> dict[str, str]:
    """place -> sentence, of the list in a package's docstring, which names each file and folder
    there but those of `_files`.
    """
    listed: dict[str, str] = {}
    for name, sentence in re.findall(r"^(\w+)  +(.+)$", package.__doc__ or "", flags=re.MULTILINE):
        place = f"{package.__name__}/{name}"
        listed[place + ("/" if (ROOT / place).is_dir() else ".py")] = sentence
    return listed


def _files() -> dict[str, str]:
    """place -> sentence, of each file beside the folders of the registry."""
    sentences = {}
    for path in sorted((ROOT / "registry").glob("[a-z]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        sentence = " ".join(docstring.partition("\n\n")[0].split()).removesuffix(".")
        sentences[f"registry/{path.name}"] = sentence[:1].lower() + sentence[1:]
    return sentences


def _table(sentences: dict[str, str]) -> str:
    rows = [f"| `{place}` | {sentence} |" for place, sentence in sentences.items()]
    return "\n".join(["| Place | What it is for |", "|---|---|", *rows]) + "\n"


RECIPE_KEYS = {
    "method": "How weights are tuned.",
    "rank": "The rank of each LoRA matrix.",
    "alpha": "The scale: what LoRA adds is multiplied by alpha / rank.",
    "dropout": "The share of LoRA's inputs that training drops.",
    "targets": "The modules to adapt, by the last part of their name, as PEFT matches them.",
    "layers": "The first and the last layer to adapt, counted from 0; null for all.",
    "steps": "Optimiser steps.",
    "batch_size": "Rows of each step.",
    "learning_rate": "The highest learning rate; it then falls in a line to zero.",
    "warmup_steps": "Steps in which the learning rate rises.",
    "max_length": "The most tokens of a row: prompt, completion and end token. No row is cut.",
    "seed": "Decides the first weights, the order of the rows and the dropout.",
    "template": "`chat` asks by the base's chat template, `plain` takes the prompt as it is.",
    "system": "The system prompt of rows that have none of their own; null for none.",
    "dtype": "The numbers that the base is loaded in; LoRA's own are float32.",
    "publish_at": "The steps whose weights become versions; the last is the end of training.",
    "save_every": "Steps between two save points, from which an interrupted run goes on.",
    "sample": "The most rows to use, drawn by the seed; null for all.",
}
"""What each key of a recipe means. What it may be stands in the rules."""

RECIPE_DEFAULTS = {
    "alpha": "twice the rank",
    "publish_at": "the last step",
    "save_every": "a tenth of the steps",
}
"""Defaults that follow from other keys."""


def recipe_page() -> str:
    """docs/recipes.md, from the fields of recipes, rows and required facts."""
    return "\n".join(_recipe_page())


def _recipe_page() -> Iterator[str]:
    assert RECIPE_KEYS.keys() == FIELDS.keys()
    yield "# Recipes\n"
    yield _paragraph(
        "A recipe says how `countersign train --recipe FILE` trains. It is YAML or JSON; its "
        "defaults are filled in, and then it is frozen with the run, hashed and signed into the "
        "training report. `make docs` writes this page from the rules that check it."
    )
    yield "## Keys\n"
    yield "| Key | Must be | Default | Meaning |"
    yield "|---|---|---|---|"
    for key, field in FIELDS.items():
        default = RECIPE_DEFAULTS.get(key) or (
            "required" if field.required else _value(field.default)
        )
        yield f"| `{key}` | {field.expected} | {default} | {RECIPE_KEYS[key]} |"
    yield ""
    yield _paragraph(
        "A plain scalar in YAML means what the core schema of YAML 1.2 says: `1e-4` and `5e-3` are "
        "numbers; `yes`, `1:30` and `2026-11-30` are texts. Write a text that looks like a number "
        "in quotes: a name `'1e4'`, a commit `'12e4567'`."
    )
    yield "## Rows\n"
    yield _paragraph(
        "A data set is JSON Lines. A row has the texts `prompt` and `completion`, and may have a "
        "text `system` and a `split` (`train` when absent). Other columns are kept, unless people "
        "expect a model to read them: "
        f"{', '.join(f'`{column}`' for column in sorted(UNREAD))} are refused when they are not "
        "empty."
    )
    yield "## Meta\n"
    yield _paragraph(
        "`--meta FILE` says of the new versions what no file says. A version that lacks "
        f"{' or '.join(f'`{name}`' for name in REQUIRED_META['adapter'])} would stay a draft, so "
        "the training is not queued without them; `--domain`, or the domain of the line, counts. "
        "`datasets` names the data sets of an adapter that was trained elsewhere."
    )
    yield "## What is checked when\n"
    yield "| When | What |"
    yield "|---|---|"
    yield "| queued | every key of the recipe, by the table above |"
    yield "| queued | the base is a registered base or checkpoint, the data set is registered |"
    yield "| queued | `targets` and `layers`: the base has them, by the headers of its weights |"
    yield "| queued | the split `train` has rows; the base names an end-of-text token |"
    yield (
        "| queued | `template`: the base's chat template is run on the first row in a sandbox; it "
        "must take it and keep its words |"
    )
    yield (
        "| queued | `max_length`: the longest rows of the first "
        f"{MAX_SCANNED_BYTES >> 20} MiB, by a lower bound: as many tokens as words, where the "
        "tokenizer splits at blanks |"
    )
    yield "| queued | `meta` has what registering a version requires |"
    yield "| by the trainer | the exact tokens of every row, memory, a loss that is a number |"
    yield "| at each `publish_at` | the version itself, by the rules of registering |\n"
    yield _paragraph(
        "The registry runs no tokenizer, so a row between the bound and the exact count is found "
        "only by the trainer, before its first step. The trainer gets the rows of the split "
        "`train` and no others, and counts rows among those. An eval run is checked in the same "
        "way: the suite's first item is asked by the template of the base, with the "
        "suite's system prompt."
    )


def _value(default: Any) -> str:
    if isinstance(default, list):
        return ", ".join(f"`{item}`" for item in default)
    return f"`{json.dumps(default)}`".replace('"', "")


PAGES: dict[str, Callable[[], str]] = {
    "demo.md": demo,
    "problems.md": problems,
    "recipes.md": recipe_page,
    "settings.md": settings,
}
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "architecture.md": {"rooms": rooms, "programs": programs, "floors": floors}
}


def filled(name: str) -> str:
    """A page of BLOCKS with its blocks made anew."""
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = BLOCKS[name]
    assert [match[2] for match in BLOCK.finditer(text)] == list(blocks), name
    return BLOCK.sub(lambda match: match[1] + blocks[match[2]]() + match[3], text)


def main() -> None:
    """Write every page, every block, and the figures of the demo."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    for name in BLOCKS:
        (DOCS / name).write_text(filled(name), encoding="utf-8")
    for name in figures.FILES:
        path = ROOT / name
        path.write_text(
            figures.rewrite(path.read_text(encoding="utf-8"), _result()), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
