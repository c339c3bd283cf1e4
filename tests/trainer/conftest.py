"""A random Llama of a million parameters and its letters: made here, without a network, in a
second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

from registry.artifacts.datasets.rows import Item, Row, sound_rows, suite_items
from registry.artifacts.weights.tensors import File
from registry.client import Countersign, NewVersion
from registry.rules.recipes import Recipe, parse
from tests.database import Databases
from tests.trainer.live import Live
from trainer import device, job
from trainer.demo import inputs
from trainer.loop import Job, Record

THIRD_PARTY = (
    # peft 0.21 asks transformers 5.23 for it
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Exactly these warnings of libraries are let pass, and only here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for text in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(text))
            item.add_marker(pytest.mark.trainer)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's tiny base and tiny data set."""
    folder = tmp_path_factory.mktemp("tiny")
    inputs.tiny_base(folder)
    inputs.tiny_dataset(folder)
    return folder


@pytest.fixture(scope="session")
def base(tiny: Path) -> Path:
    return inputs.tiny_base(tiny)


@pytest.fixture(scope="session")
def rows(tiny: Path) -> list[Row]:
    path = inputs.tiny_dataset(tiny)
    data = path.read_bytes()
    file = File(path.name, hashlib.sha256(data).hexdigest(), len(data))
    return list(sound_rows(file, lambda _, start, length: data[start : start + length]))


@pytest.fixture(scope="session")
def items(rows: list[Row]) -> tuple[Item, ...]:
    return suite_items(rows, "test")


@pytest.fixture(scope="session")
def cpu() -> device.Device:
    job.quieten()
    # A second thread has nothing to do in matrices this small, and waits for it spinning.
    torch.set_num_threads(1)
    return device.choose("float32")


@pytest.fixture(scope="session")
def live(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    served = Live(tmp_path_factory.mktemp("registry"), databases.create("trainer"))
    yield served
    served.down()
    served.store.engine.dispose()


@pytest.fixture(scope="session")
def nora(live: Live, tiny: Path) -> Iterator[Countersign]:
    """An engineer who has registered the base and the data."""
    with Countersign(live.url, live.engineer) as registry:
        registry.add(
            "base", inputs.tiny_base(tiny), NewVersion("acme/tiny", meta=inputs.TINY_BASE_META)
        )
        registry.add_dataset(inputs.tiny_dataset(tiny), "acme/letters", inputs.TINY_DATASET_META)
        yield registry


def short_recipe(**changes: object) -> Recipe:
    """Eight steps of four rows, with dropout, so that the random state matters."""
    return parse(
        {
            "steps": 8,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "dropout": 0.1,
            "rank": 4,
            "max_length": 48,
            "publish_at": [4, 8],
            "save_every": 2,
            "seed": 7,
            **changes,
        }
    )


@pytest.fixture
def make_job(base: Path, rows: list[Row], cpu: device.Device) -> Callable[..., Job]:
    """Build a job in a folder; `stop_after` asks it to stop once that step is done."""

    def make(
        work: Path,
        recipe: Recipe | None = None,
        *,
        stop_after: int | None = None,
        seen: list[Record] | None = None,
        published: dict[int, bytes] | None = None,
    ) -> Job:
        steps: list[Record] = [] if seen is None else seen

        def publish(step: int, folder: Path, tokens: int) -> None:
            if published is not None:
                published[step] = (folder / "adapter_model.safetensors").read_bytes()

        return Job(
            recipe=recipe or short_recipe(),
            base=base,
            rows=rows,
            device=cpu,
            work=work,
            on_step=steps.append,
            publish=publish,
            stopped=lambda: (
                stop_after is not None and bool(steps) and steps[-1]["step"] >= stop_after
            ),
        )

    return make
