"""Lease work over HTTP, do it in a child process, register what comes of it, report it signed.

The worker holds a scoped token and a signing key of its own, nothing else of the registry. It loads
neither torch nor the weights, so nothing that training does can take it down.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from registry.artifacts.bundles import judge
from registry.artifacts.datasets.rows import decode_items
from registry.artifacts.datasets.samples import expected_answers, read_samples
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File, Read
from registry.client import Countersign
from registry.client.blobs import hash_file
from registry.client.versions import bundle_files
from registry.documents import canonical
from registry.errors import (
    BundleRejected,
    Conflict,
    Fault,
    NotFound,
    Refused,
    RegistryError,
    Unavailable,
    Unverified,
)
from registry.proof.keys import SigningKey
from registry.rules import evals, recipes, refs
from registry.views.training_runs import EvalWork, InputView, TrainingWork, WorkView
from trainer import tracking
from trainer.cache import Cache
from trainer.child import Child, Outcome
from trainer.lease import Gone, Lease

LOG = logging.getLogger("trainer.worker")
LOOK = 0.2  # seconds between looks at the child
LAST_WORDS = (
    10.0  # seconds a child has to reach the end of its step and save; `up` gives the worker 15
)
RESTARTS = 1  # times a child killed by the system is started again from its save point


class Worker:
    """One machine's worth of training and evaluating, one piece of work at a time."""

    def __init__(self, registry: Countersign, work_dir: Path, mlflow: str | None = None) -> None:
        """Take the work folder (Conflict when another worker has it) and enrol this worker's
        key.
        """
        self._registry = registry
        self._mlflow = mlflow
        self._name = socket.gethostname()
        self._work_dir = work_dir
        work_dir.mkdir(parents=True, exist_ok=True)
        self._lock = (work_dir / "worker.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Conflict(
                "work-dir-taken",
                f"Another worker works in {work_dir}.",
            ) from None
        self._cache = Cache(registry, work_dir / "cache")
        self._read = read_files((work_dir / "cache" / "blobs").joinpath)
        self._key = self._enrolled_key(work_dir / "signing-key.pem")
        self.stopping = threading.Event()

    def _enrolled_key(self, path: Path) -> SigningKey:
        try:
            key = SigningKey.load(path)
        except NotFound:
            key = SigningKey.generate()
            key.save(path)
        known = {one.public_key for one in self._registry.me().keys if one.revoked_at is None}
        if key.public_text not in known:
            self._registry.enroll_key(
                key.public_text,
                f"trainer on {self._name}",
                lambda document: key.sign_document(document, "enrol"),
            )
        return key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def run(self, poll: float, *, once: bool = False) -> None:
        """Work until told to stop; `once` ends when there is no more work to be had."""
        while not self.stopping.is_set():
            try:
                work = self._registry.lease(self._name)
            except (Unavailable, Fault, Conflict) as error:
                # Away, or somebody was faster; neither is a reason to end.
                LOG.warning("no work was had: %s", error)
                work = None
                if once and not isinstance(error, Conflict):
                    raise
            if work is not None:
                self.do(work)
            elif once:
                return
            else:
                self.stopping.wait(poll)

    def do(self, work: WorkView) -> None:
        """One leased piece of work, to its report; whatever goes wrong with it is reported too,
        never raised.
        """
        folder = self._work_dir / "runs" / str(work.id)
        LOG.info("%s %s, attempt %d", work.kind, work.id, work.attempt)
        with Lease(self._registry, work, self.stopping) as lease:
            try:
                if work.training is not None:
                    self._train(lease, work.training, folder)
                elif work.evaluation is not None:
                    self._evaluate(lease, work.evaluation, folder)
            except Gone:
                self._leave(lease, folder)
            except Unavailable as error:
                # Everything done so far lies in the folder; the next attempt finds it there.
                LOG.error("given up for now, the registry stayed away: %s", error)
            except RegistryError as error:
                LOG.error("%s failed: %s", work.id, error)
                self._fail(lease, f"{error.kind}: {error}")
            except Exception as error:
                # A full disk, or a mistake of ours: the next piece of work may fare better, this
                # one would not.
                LOG.exception("%s failed", work.id)
                self._fail(lease, f"trainer-fault: {type(error).__name__}: {error}")
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _leave(self, lease: Lease, folder: Path) -> None:
        """Cancelled, lost, or this worker is to stop: only the last leaves something to tell."""
        LOG.info(
            "%s is left: %s",
            lease.work.id,
            lease.state if lease.state != "held" else "this worker stops",
        )
        if lease.state == "cancelled":
            shutil.rmtree(folder, ignore_errors=True)
        elif lease.state == "held":
            self._tell(
                lambda: self._registry.requeue(
                    lease.work.id, lease.work.attempt, "the worker was told to stop"
                )
            )

    def _fail(self, lease: Lease, error: str) -> None:
        self._tell(lambda: self._registry.fail(lease.work.id, lease.work.attempt, error))

    def _tell(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except RegistryError as error:
            LOG.warning("the registry could not be told; the lease will run out: %s", error)

    def _train(self, lease: Lease, work: TrainingWork, folder: Path) -> None:
        recipe = recipes.parse(work.recipe)
        if canonical.digest(recipe.as_dict()) != work.recipe_digest:
            raise Unverified(
                "recipe-digest-mismatch",
                "The recipe leased is not the one its digest names.",
            )
        rows = lease.patiently(lambda: self._cache.file(work.dataset.files[0].sha256))
        base = lease.patiently(lambda: self._cache.folder(work.base.files))
        below = self._below(work.base)
        job = {
            "kind": "training",
            "run": str(lease.work.id),
            "recipe": work.recipe,
            "adapter": work.adapter,
            "base": {
                "ref": work.base.ref,
                "folder": str(base),
                "line": below.line,
                "commit": below.commit,
            },
            "dataset": {
                "ref": work.dataset.ref,
                "file": str(rows),
                "sha256": work.dataset.files[0].sha256,
                "root": work.dataset.root,
            },
        }
        tracker = tracking.track(self._mlflow, _topic(lease, work, recipe))
        status = "FAILED"
        outputs = self._published_before(lease, work)
        register = partial(self._register, lease, work, folder, recipe, outputs, below)
        try:
            outcome = self._follow(lease, folder, job, tracker, register)
            link = tracker.close(
                status := "FINISHED", folder / "published" / f"step-{recipe.steps}"
            )
            report = {
                "run": str(lease.work.id),
                "attempt": lease.work.attempt,
                "recipe_digest": work.recipe_digest,
                "base_root": work.base.root,
                "dataset_root": work.dataset.root,
                "outputs": [outputs[step] for step in recipe.publish_at],
                "meters": outcome.meters,
                "environment": outcome.environment,
                "mlflow": None if link is None else {"run_id": link.run_id, "url": link.url},
            }
            self._finish(
                lease, report, lambda document: self._key.sign_document(document, "training-report")
            )
        except Gone:
            status = "KILLED"
            raise
        finally:
            if status != "FINISHED":
                tracker.close(status, wait=5.0)

    def _published_before(self, lease: Lease, work: TrainingWork) -> dict[int, dict[str, Any]]:
        """The versions that an earlier attempt, on this machine or another, registered already; by
        step.

        A draft is none: registering it again says what it lacks. One that was discarded ends the
        run before it trains.
        """
        found = {}
        for step, ref in work.published.items():
            try:
                version = lease.patiently(lambda ref=ref: self._registry.version(ref))  # type: ignore[misc]  # as below
            except NotFound as gone:
                raise Refused(
                    "output-discarded",
                    f"What this training run made at step {step} was discarded while the run went "
                    f"on. {gone}",
                ) from None
            if version.state == "draft":
                continue
            found[int(step)] = {
                "step": int(step),
                "ref": ref,
                "manifest_digest": version.manifest_digest,
            }
        return found

    def _register(
        self,
        lease: Lease,
        work: TrainingWork,
        folder: Path,
        recipe: recipes.Recipe,
        outputs: dict[int, dict[str, Any]],
        below: judge.BaseFacts,
    ) -> None:
        """Register every published step that the registry does not have yet, and that its rules
        take.

        They are asked here first, so that a fault of ours is found where its files still lie,
        before anything is sent.
        """
        for step in recipe.publish_at:
            packed = folder / "published" / f"step-{step}"
            if step in outputs or not packed.is_dir():
                continue
            made = _sound(packed, below)
            # The requester's own words (purpose, domain) stand in the training run; the registry
            # adds them.
            added = lease.patiently(
                lambda packed=packed, step=step: self._registry.add(  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
                    "adapter",
                    packed,
                    work.adapter,
                    base=work.base.ref,
                    meta={"base_root": work.base.root},
                    training_run=lease.work.id,
                    attempt=lease.work.attempt,
                    step=step,
                )
            )
            if added.status == "draft":
                missing = "; ".join(finding.detail for finding in added.findings)
                raise Refused(
                    "output-incomplete",
                    f"The version at step {step} stays a draft: {missing}.",
                    "Queue the training with these in its meta.",
                )
            if added.digest != made:
                raise Unverified(
                    "manifest-mismatch",
                    f"Step {step} was made as {made}, registered as {added.digest}.",
                    "Ask an administrator to run countersign doctor.",
                )
            LOG.info("step %d is %s", step, added.ref)
            outputs[step] = {"step": step, "ref": added.ref, "manifest_digest": added.digest}

    def _follow(
        self,
        lease: Lease,
        folder: Path,
        job: dict[str, Any],
        tracker: tracking.Tracker,
        register: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """See the child through to its end. Raises Gone when it is to stop, Refused with the
        child's own reason.
        """
        child = Child(folder, job)
        restarts = 0
        try:
            while True:
                running = child.running()  # asked before the look, so that the last words are heard
                for record in child.news():
                    lease.progress = {
                        key: value for key, value in record.items() if key != "grad_norm"
                    }
                    if "loss" in record:
                        tracker.step(
                            record["step"], {key: record[key] for key in _TRACKED if key in record}
                        )
                register()
                lease.check()
                if running:
                    time.sleep(LOOK)
                    continue
                if child.killed and restarts < RESTARTS:
                    restarts += 1
                    LOG.warning("the child was killed; it goes on from its save point")
                    child.start()
                    continue
                outcome = child.outcome()
                if outcome.error:
                    raise Refused("job-failed", outcome.error)
                return outcome
        except Gone:
            # Cancelled or lost work is not worth its last step; a worker that stops politely saves
            # it.
            child.stop(LAST_WORDS if lease.state == "held" else 0.0)
            raise
        finally:
            child.close()

    def _evaluate(self, lease: Lease, work: EvalWork, folder: Path) -> None:
        subject = lease.patiently(lambda: self._cache.folder(work.subject.files))
        below = work.base
        base = lease.patiently(lambda: self._cache.folder(below.files)) if below else None
        items = lease.patiently(lambda: self._cache.file(work.items.sha256))
        subject_root, base_root = roots(work.subject, work.base, self._read)
        outcome = self._follow(
            lease,
            folder,
            {
                "kind": "evaluation",
                "base": str(base or subject),
                "adapter": str(subject) if base else None,
                "items": str(items),
                "decoding": work.decoding,
            },
            tracking.Untracked(),
        )
        samples = folder / "samples.jsonl"
        sent = lease.patiently(lambda: self._registry.put_file(samples))
        scores = evals.score(
            read_samples(samples.read_bytes()),
            expected_answers(decode_items(items.read_bytes())),
            work.metric,
        )
        report = {
            "run": str(lease.work.id),
            "attempt": lease.work.attempt,
            "suite_digest": work.suite_digest,
            "subject_root": subject_root,
            "base_root": base_root,
            "samples_sha256": sent.sha256,
            "metrics": {work.metric: {"correct": scores.correct, "n": scores.n}},
            "meters": outcome.meters,
            "environment": outcome.environment,
        }
        self._finish(
            lease, report, lambda document: self._key.sign_document(document, "eval-report")
        )

    def _below(self, base: InputView) -> judge.BaseFacts:
        """What the adapter is trained on, as it is registered: an adapter's configuration names it
        by line and commit.
        """
        files = [File(file.path, file.sha256, file.size) for file in base.files]
        commit = refs.commit(canonical.digest(judge.manifest_of(files)))
        facts = judge.base_facts(files, self._read, base_root=base.root)
        return replace(facts, line=refs.parse_ref(base.ref).line, commit=commit)

    def _finish(
        self,
        lease: Lease,
        report: dict[str, Any],
        sign: Callable[[dict[str, Any]], tuple[str, str]],
    ) -> None:
        """Hand in the report; arriving twice it is once, so it is sent until the registry has
        surely heard it.
        """
        lease.patiently(
            lambda: self._registry.finish(lease.work.id, lease.work.attempt, report, sign)
        )
        LOG.info("%s is finished", lease.work.id)


_TRACKED = ("loss", "learning_rate", "grad_norm", "tokens", "seconds", "peak_memory_bytes")


def _topic(lease: Lease, work: TrainingWork, recipe: recipes.Recipe) -> tracking.Topic:
    domain = str(work.meta.get("domain") or work.adapter)
    return tracking.Topic(
        experiment=f"{work.base.ref} · {domain}",
        training_run=str(lease.work.id),
        attempt=lease.work.attempt,
        params=recipe.as_dict(),
        dataset=work.dataset.ref,
        dataset_root=work.dataset.root,
        tags={
            "adapter": work.adapter,
            "base": work.base.ref,
            "base_root": work.base.root,
            "recipe_digest": work.recipe_digest,
        },
    )


def _sound(folder: Path, below: judge.BaseFacts) -> str:
    """The digest a bundle is registered under, from the bytes on this disk; BundleRejected when the
    rules refuse it.
    """
    files, paths = [], {}
    for path, inside in bundle_files(folder):
        sha256, size = hash_file(path)
        files.append(File(inside, sha256, size))
        paths[sha256] = path

    read = read_files(paths.__getitem__)
    seen = judge.inspect("adapter", files, read, base=below, meta={})
    if seen.defects:
        raise BundleRejected(seen.defects)
    return seen.manifest_digest


REGISTERED = Judge(lambda texts, tokens: [], ("registered",))
"""A chat template of a registered adapter was looked at when it was let in, and enters no root."""


def roots(subject: InputView, base: InputView | None, read: Read) -> tuple[str, str]:
    """The subject's tensor root and its base root, computed from the bytes that were run, never
    copied from the lease; Unverified when they are not those that were leased.
    """
    below = None
    if base is not None:
        files = _files(base)
        under = judge.inspect("base", files, read, base=None, meta={})
        if not under.is_base(base.root):
            raise _other_root(base.ref, under.base_root, base.root)
        below = judge.base_facts(files, read, base_root=base.root)
    kind: judge.Kind = "adapter" if base else "base"
    inspector = judge.Inspector(read, judge=REGISTERED)
    seen = inspector.inspect(kind, _files(subject), base=below, meta={})
    same = seen.tensor_root == subject.root if base else seen.is_base(subject.root)
    if seen.tensor_root is None or seen.base_root is None or not same:
        raise _other_root(subject.ref, seen.tensor_root if base else seen.base_root, subject.root)
    return seen.tensor_root, seen.base_root if base else subject.root


def _files(leased: InputView) -> list[File]:
    return judge.without_docs([File(file.path, file.sha256, file.size) for file in leased.files])


def _other_root(ref: str, found: str | None, leased: str) -> Unverified:
    return Unverified(
        "root-mismatch",
        f"The files of {ref} have the root {found}, but {leased} was leased.",
    )


def main(work_dir: Path, poll: float, *, once: bool) -> None:
    """Run a worker for the registry and token the environment names; SIGTERM and Ctrl-C give the
    work back.
    """
    mlflow = os.environ.get("COUNTERSIGN_MLFLOW_URL")
    with Countersign() as registry, Worker(registry, work_dir, mlflow) as worker:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stopping.set())
        worker.run(poll, once=once)
