"""The delivery half of the main job: canary with real requests, promotion, rollback, promotion
again, offline proof.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx

from registry.errors import Fault
from trainer.demo import inputs
from trainer.demo.progress import Bar
from trainer.demo.stage import ALEX, NORA, Stage
from trainer.demo.steps import ENVIRONMENT, LINE_OF, final, kinds

SHARE = 5
REQUESTS = {False: 60, True: 80}
LEAST = 3
"""Requests the candidate must have answered: of 60 at 5 % it meets none in one run of twenty, and
no data is no canary.
"""
PROBES = 6


def canary(stage: Stage) -> None:
    """The approved version takes 5 % of real requests through the gateway; the base keeps the
    rest.
    """
    with stage.timed("canary"):
        ref = final(stage, stage.client(NORA))
        done = kinds(stage)
        if not done:
            stage.run(NORA, "canary", "start", ref, "--env", ENVIRONMENT, "--share", str(SHARE))
        elif done != ["canary"] or "arms" in stage.result:
            stage.say("  Found the canary already run.")
            return
        _applied(stage, 1)
        began = time.monotonic()
        arms = _send(stage, REQUESTS[stage.tiny])
        stage.note("requests_per_second", round(sum(arms.values()) / (time.monotonic() - began), 2))
        stage.note("arms", {"requests": sum(arms.values()), **arms, "records": _records(stage)})
    told = ", ".join(f"{count} by {arm}" for arm, count in sorted(arms.items()))
    stage.say(f"  {sum(arms.values())} requests: {told} (the gateway's own records agree).")


def promotion(stage: Stage) -> None:
    """The canary becomes the stable version: all requests go to it."""
    _move(
        stage, "promotion", 1, "promote", "The canary was clean.", final(stage, stage.client(NORA))
    )


def rollback(stage: Stage) -> None:
    """A complaint comes in: one command takes everything back to the base, at once."""
    ref = stage.client(NORA).version(final(stage, stage.client(NORA))).base
    assert ref is not None
    _move(stage, "rollback", 2, "rollback", "Complaint 5512: a wrong category in a contract.", ref)


def promotion_again(stage: Stage) -> None:
    """The complaint was about another system; the version goes back on, with no new canary
    needed.
    """
    _move(
        stage,
        "promotion_again",
        3,
        "promote",
        "Complaint 5512 was about another system.",
        final(stage, stage.client(NORA)),
    )


def _move(stage: Stage, step: str, after: int, verb: str, reason: str, expected: str) -> None:
    """One generation further, seen by the gateway and proven by requests that say who answered."""
    with stage.timed(step):
        if len(kinds(stage)) > after:
            stage.say("  Found it already done.")
            return
        began = time.monotonic()
        route = stage.run(NORA, verb, LINE_OF[stage.tiny], "--env", ENVIRONMENT, "--reason", reason)
        _applied(stage, route["generation"])
        seen = round(time.monotonic() - began, 2)
        answered = {_ask(stage, f"probe-{number}")[0] for number in range(PROBES)}
        if answered != {expected}:
            raise Fault(
                "route-not-followed",
                f"{verb}: {', '.join(map(str, answered))} answered, not {expected}.",
            )
        stage.note(f"{step}_seconds_to_gateway", seen)
    stage.say(
        f"  {expected} answers every request; the gateway followed {seen} s after the command "
        "began."
    )


def _applied(stage: Stage, generation: int) -> None:
    """Wait until the gateway serves this generation: its engine has then loaded what it names."""

    def serves() -> bool:
        try:
            models = httpx.get(f"{stage.urls['gateway']}/v1/models", timeout=10).json()["data"]
        except httpx.HTTPError:
            return False
        mine = [
            one["countersign"]["generation"]
            for one in models
            if one["id"].startswith(LINE_OF[stage.tiny])
        ]
        return bool(mine) and mine[0] is not None and mine[0] >= generation

    stage.wait("the gateway to follow the route", serves, 300)


def _prompts(stage: Stage) -> list[str]:
    folder = stage.home / "inputs"
    path = inputs.tiny_dataset(folder) if stage.tiny else inputs.dataset_file(folder)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["prompt"] for row in rows if row["split"] == "test"]


def _ask(stage: Stage, unit: str, prompt: str = "hello") -> tuple[str, str]:
    """One request as an application sends it; (who answered, by which arm)."""
    answer = httpx.post(
        f"{stage.urls['gateway']}/v1/chat/completions",
        headers={"X-Unit-Id": unit},
        timeout=120,
        json={
            "model": LINE_OF[stage.tiny],
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 4,
        },
    )
    answer.raise_for_status()
    return answer.headers["X-Countersign-Version"], answer.headers["X-Countersign-Arm"]


def _send(stage: Stage, count: int) -> Counter[str]:
    """Requests of as many different users, and on until the candidate has answered some; which arm
    each met.
    """
    prompts = _prompts(stage)
    arms: Counter[str] = Counter({"stable": 0, "candidate": 0})
    most = 10 * count
    with Bar("requests", stage.out) as bar:
        for number in range(most):
            if number >= count and arms["candidate"] >= LEAST:
                break
            arms[_ask(stage, f"user-{number}", prompts[number % len(prompts)])[1]] += 1
            bar.show(number + 1, max(count, number + 1), f"{arms['candidate']} by the candidate")
    if arms["candidate"] < LEAST:
        raise Fault(
            "canary-unmet",
            f"The candidate answered {arms['candidate']} of {most} requests at {SHARE} %.",
        )
    return arms


def _records(stage: Stage) -> list[dict[str, Any]]:
    """What the gateway itself recorded of generation 1; it must bear out what the answers said."""
    summary = httpx.get(f"{stage.urls['gateway']}/records/summary", timeout=10).json()
    return [one for one in summary["counts"] if one["generation"] == 1]


def proof(stage: Stage) -> None:
    """The auditor takes the whole log away and checks it offline, with the registry stopped."""
    with stage.timed("proof"):
        pack = stage.home / "pack.zip"
        pack.unlink(missing_ok=True)
        stage.wait(
            "the log to be signed to its end",
            lambda: stage.client(ALEX).tree_head().pending == 0,
            60,
        )
        stage.run(ALEX, "audit", "export", "--out", str(pack))
        stage.stop()
        stage.say("  The registry is stopped.")
        key = stage.registry_home / "log.pub"
        stage.say("  alex $ countersign-verify demo/pack.zip --key demo/registry/log.pub")
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "registry.verifier", str(pack), "--key", str(key), "--json"],
            text=True,
            capture_output=True,
            env=environ,
            check=False,
        )
        if done.returncode:
            raise Fault(
                "log-not-verified",
                (done.stdout + done.stderr).strip()[-500:],
            )
        found = json.loads(done.stdout)
        stage.note(
            "log", {"events": found["events"], "votes": found["votes"], "root": found["root"]}
        )
    stage.say(
        f"  Valid: {found['events']} events and {found['votes']} signed votes under root "
        f"{found['root']}."
    )
    if not stage.ends:
        stage.start()
        stage.await_ready()
