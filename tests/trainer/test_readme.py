"""The README's lines for the reader's own adapter, typed as they stand: a tiny random base, a LoRA
that PEFT saved, a file of questions.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import repository
from tests.ports import free_port

pytestmark = pytest.mark.trainer
README = (repository() / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first block of this language in the section on one's own adapter."""
    section = README.partition("## Your own adapter\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


def write_inputs(folder: Path) -> None:
    """What the reader is assumed to have: a base and a LoRA on it, as transformers and PEFT save
    them, and questions with answers.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.demo import inputs

    base = inputs.tiny_base(folder).rename(folder / "my-base")
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4)).save_pretrained(
        folder / "my-adapter"
    )
    rows = [
        {"prompt": f"letter number {number}", "completion": "claims", "split": "test"}
        for number in range(8)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "meta.yaml").write_text(block("yaml"))


def test_the_readers_own_adapter_is_registered_and_evaluated(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    lines = block("console").replace("8080", str(free_port()))
    commands = re.findall(r"^\$ (.+(?:\n    .+)*)", lines, flags=re.MULTILINE)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
    }
    environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}",
        "COUNTERSIGN_CONFIG_DIR": str(tmp_path / "config"),
    }
    up = subprocess.Popen(
        ["bash", "-c", f"exec {commands[0]}"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert up.stdout is not None
    try:
        said: list[str] = []
        while not said or "is ready" not in said[-1]:
            said.append(up.stdout.readline())
            assert said[-1], "".join(said)
        script = "\n".join(["set -euo pipefail", *commands[1:]])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("registered") >= 3, done.stdout
        assert done.stdout.count("succeeded") == 2, done.stdout
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(120)
        up.stdout.close()
    # A stopped home, copied, is a backup: docs/production.md says so.
    subprocess.run(["cp", "--archive", tmp_path / "countersign", tmp_path / "copied"], check=True)
    checked = subprocess.run(
        [sys.executable, "-m", "registry", "doctor", "--home", tmp_path / "copied", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["ok"]
