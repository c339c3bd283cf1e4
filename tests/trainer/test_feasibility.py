"""The registry refuses at the door what the trainer would refuse: real models, the same files.

The registry sees files and headers; the trainer loads the model and runs the tokenizer. Both must
say the same of every recipe here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from registry.artifacts.datasets.rows import sound_rows
from registry.artifacts.feasibility import recipes as feasibility
from registry.artifacts.feasibility import suites
from registry.artifacts.feasibility.recipes import Base, Reading, Rows, Training
from registry.artifacts.methods.plans import Plan
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.rules.recipes import Recipe, parse
from trainer import data, model
from trainer.device import Device

META = {"purpose": "to be tested", "domain": "legal"}
LETTERS = [{"prompt": f"letter {n} of many words", "completion": "claims"} for n in range(4)]


class Bench:
    """A base in a folder and rows, judged by both sides."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        self.folder, paths = folder, {}
        self.files = []
        for path in sorted(folder.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            paths[digest] = path
            self.files.append(File(path.name, digest, path.stat().st_size))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        data_path = folder.with_suffix(".jsonl")
        data_path.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        paths[digest] = data_path
        self.read = read_files(paths.__getitem__)
        self.data = File("rows.jsonl", digest, len(text.encode()))
        self.rows = list(sound_rows(self.data, self.read))

    def registry(self, recipe: Recipe) -> dict[str, str]:
        """What the registry says of a recipe, by its keys."""
        splits: dict[str, int] = {}
        for row in self.rows:
            splits[row.split] = splits.get(row.split, 0) + 1
        training = Training(
            Plan(recipe.targets, recipe.layers, recipe.rank, recipe.alpha),
            Reading(recipe.template, recipe.max_length, recipe.system),
            Base("acme/tiny@v1", "sha256:" + "0" * 64, self.files),
            Rows("acme/rows@v1", self.data, splits),
            META,
        )
        wrong = feasibility.problems(training, self.read)
        return {problem.path: problem.text for problem in wrong}

    def trainer(self, recipe: Recipe, cpu: Device) -> str | None:
        """Why the trainer cannot train by a recipe; None when it can."""
        try:
            tokenizer = model.load_tokenizer(self.folder)
            net = model.load_base(self.folder, cpu)
            form = data.Form(recipe.template, recipe.system, model.end_tokens(net, tokenizer))
            data.tokenise(self.rows, tokenizer, form, recipe.max_length)
            model.wrap(net, recipe)
        except Exception as error:  # whatever it is, the run would fail
            return f"{type(error).__name__}: {error}"
        return None


def recipe(**changes: Any) -> Recipe:
    plain = {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "rank": 2, "max_length": 64}
    return parse({**plain, "targets": ["q_proj"], **changes})


@pytest.fixture(scope="module")
def llama(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(_copy(base, tmp_path_factory), LETTERS)


@pytest.fixture(scope="module")
def gpt2(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Conv1D modules, and names in the file that the loaded model puts under `transformer`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = _copy(base, tmp_path_factory)
    size = len(model.load_tokenizer(folder))
    config = GPT2Config(vocab_size=size, n_embd=32, n_layer=3, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return Bench(folder, LETTERS)


def _copy(base: Path, factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp("base") / "model"
    shutil.copytree(base, folder)
    return folder


LLAMA: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"template": "plain"}, None),
    ({"targets": ["q_proj", "down_proj"], "layers": [0, 1]}, None),
    ({"targets": ["embed_tokens", "lm_head"]}, None),
    ({"targets": ["c_attn"]}, "targets"),
    ({"targets": ["q_proj", "query_key_value"]}, "targets"),
    ({"targets": ["mlp"]}, "targets"),
    ({"targets": ["input_layernorm"]}, "targets"),
    ({"targets": ["proj"]}, "targets"),
    ({"layers": [0, 99]}, "layers"),
    ({"layers": [99, 99]}, "layers"),
    ({"max_length": 8, "template": "plain"}, None),
    ({"max_length": 8}, "max_length"),
]


@pytest.mark.parametrize(("change", "key"), LLAMA)
def test_both_sides_agree_on_a_llama(
    llama: Bench, cpu: Device, change: dict[str, Any], key: str | None
) -> None:
    _agree(llama, cpu, recipe(**change), key)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"targets": ["c_attn"]}, None),
        ({"targets": ["c_attn", "c_proj"], "layers": [0, 2]}, None),
        ({"targets": ["wte"]}, None),
        ({"targets": ["q_proj"]}, "targets"),
        ({"targets": ["c_attn"], "layers": [1, 3]}, "layers"),
    ],
)
def test_both_sides_agree_on_a_gpt2(
    gpt2: Bench, cpu: Device, change: dict[str, Any], key: str | None
) -> None:
    _agree(gpt2, cpu, recipe(**change), key)


def _agree(bench: Bench, cpu: Device, tried: Recipe, key: str | None) -> None:
    refused, failed = bench.registry(tried), bench.trainer(tried, cpu)
    assert set(refused) == ({key} if key else set())
    assert bool(failed) == bool(refused), (failed, refused)


def _write(folder: Path, template: str | None, **settings: Any) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    document = json.loads(path.read_text())
    document.pop("chat_template", None)
    for key, value in settings.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
    path.write_text(json.dumps(document))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)


TURNS = "{% for m in messages %}<start> {{ m.role }} {{ m.content }} {% endfor %}"
SAID = [{"prompt": "a letter", "completion": "claims", "system": "Be brief."}]


@pytest.mark.parametrize(
    ("template", "rows", "key", "words"),
    [
        (TURNS, LETTERS, None, ""),
        (TURNS, SAID, None, ""),
        (None, LETTERS, "template", "has no chat template"),
        ("{{ raise_exception('only tools') }}", LETTERS, "template", "only tools"),
        ("{{ messages[0].content[0].text }}", LETTERS, "template", "leaves out what the user says"),
        ("Hello", LETTERS, "template", "leaves out what the user says"),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            LETTERS,
            "template",
            "leaves out what the assistant answers",
        ),
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}"
            "{% endfor %}",
            SAID,
            "template",
            "leaves out what the system says",
        ),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            + TURNS,
            SAID,
            "template",
            "refuses a system prompt: no system",
        ),
        (
            "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + TURNS,
            LETTERS,
            "template",
            "refuses the answer: one turn (line 1 of acme/rows@v1). Write template: plain",
        ),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            LETTERS,
            "template",
            "(line 1 of acme/rows@v1). Try again. If that fails too, write template: plain",
        ),
        (TURNS, [{**LETTERS[0], "split": "test"}], "dataset", "its splits are test"),
        (TURNS, [{"prompt": "x" * 70_000, "completion": "y"}], None, ""),
        (
            TURNS.replace("m.content", "m.content.split('</think>')[-1]"),
            [{"prompt": "a", "completion": "<think>hm</think>b"}],
            None,
            "",
        ),
    ],
)
def test_templates_and_splits(
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
    template: str | None,
    rows: list[dict[str, Any]],
    key: str | None,
    words: str,
) -> None:
    folder = _copy(base, tmp_path_factory)
    _write(folder, template)
    refused = Bench(folder, rows).registry(recipe(max_length=100_000))
    assert set(refused) == ({key} if key else set())
    assert words in refused.get(key or "", "")


@pytest.mark.parametrize("key", ["template", "dataset", "base"])
def test_the_trainer_fails_there_too(
    base: Path, cpu: Device, tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    folder, rows = _copy(base, tmp_path_factory), LETTERS
    if key == "template":
        _write(folder, None)
    elif key == "dataset":
        rows = [{**row, "split": "dev"} for row in LETTERS]
    else:
        _write(folder, TURNS, eos_token=None)
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
    bench = Bench(folder, rows)
    assert set(bench.registry(recipe())) == {key}
    assert bench.trainer(recipe(), cpu) is not None


def test_rows_too_long_are_named_by_line_and_never_where_they_fit(
    base: Path, cpu: Device, tmp_path_factory: pytest.TempPathFactory
) -> None:
    long = {"prompt": "word " * 30, "completion": "claims"}
    rows = [*LETTERS, long, {**long, "split": "test"}]
    bench = Bench(_copy(base, tmp_path_factory), rows)
    refused = bench.registry(recipe(max_length=24, template="plain"))
    assert set(refused) == {"max_length"}
    assert "line 5 of acme/rows@v1 has 32 tokens or more" in refused["max_length"]
    assert "longer than 24" in str(bench.trainer(recipe(max_length=24, template="plain"), cpu))
    tokenizer = model.load_tokenizer(bench.folder)
    plain = data.Form(
        "plain", None, model.end_tokens(model.load_base(bench.folder, cpu), tokenizer)
    )
    exact = max(len(example.ids) for example in data.tokenise(bench.rows, tokenizer, plain, 99))
    assert bench.registry(recipe(max_length=exact, template="plain")) == {}
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": long["prompt"]}], tokenize=True, add_generation_prompt=True
    )
    exact = len(asked["input_ids"]) + 2  # the answer of a word, and the end
    assert bench.registry(recipe(max_length=exact)) == {}
    assert set(bench.registry(recipe(max_length=exact // 2))) == {"max_length"}


def test_a_blank_system_prompt_has_the_words_of_none(
    base: Path, cpu: Device, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A template that writes a long system prompt of its own where a row has none."""
    folder = _copy(base, tmp_path_factory)
    _write(folder, "{% if messages[0].role != 'system' %}" + "word " * 40 + "{% endif %}" + TURNS)
    blank = {"prompt": "a", "completion": "b", "system": " "}
    long = {"prompt": "word " * 30, "completion": "b", "system": "Be brief."}
    bench = Bench(folder, [blank, long])
    assert (bench.registry(recipe()), bench.trainer(recipe(), cpu)) == ({}, None)
    refused = Bench(folder, [blank, {**long, "system": ""}])
    assert set(refused.registry(recipe())) == {"max_length"}
    assert refused.trainer(recipe(), cpu) is not None


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_two_system_prompts_for_one_row_are_refused_when_queued(
    template: str, base: Path, cpu: Device, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = {"prompt": "a letter", "completion": "claims"}
    rows = [row, {**row, "system": " "}, {**row, "system": "Be brief."}]
    bench = Bench(_copy(base, tmp_path_factory), rows)
    other = recipe(template=template, system="Be long.")
    refused = bench.registry(other)
    assert set(refused) == {"system"}
    assert "line 3 of acme/rows@v1" in refused["system"]
    assert "training row 3 has another" in str(bench.trainer(other, cpu))
    agreed = recipe(template=template, system="Be brief.")
    assert (bench.registry(agreed), bench.trainer(agreed, cpu)) == ({}, None)


def test_suites_are_tried_on_their_first_item(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = _copy(base, tmp_path_factory)
    _write(
        folder,
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURNS,
    )
    bench = Bench(folder, LETTERS)

    def ask(**decoding: Any) -> str | None:
        return suites.problem(bench.files, {"system": None, **decoding}, "A letter", bench.read)

    assert ask(template="chat") is None
    assert ask(template="plain", system="Be brief.") is None
    refusal = ask(template="chat", system="Be brief.")
    assert refusal is not None
    assert "refuses a system prompt" in refusal
    assert "without --system" in refusal


def test_meta_that_would_leave_a_draft_is_refused_by_the_rule_of_registering(
    llama: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry.artifacts.bundles import judge

    monkeypatch.setitem(judge.REQUIRED_META, "adapter", ("domain", "purpose", "licence"))
    assert set(llama.registry(recipe())) == {"meta.licence"}
