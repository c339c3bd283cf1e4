"""Lease work over HTTP, do it in a child process, register the outcome, and sign a report on it.

The worker holds a scoped token and a signing key of its own, and nothing else of the registry. It
loads neither torch nor the weights, so nothing that training does can crash it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from registry.artifacts.weights.local_files import read_files
from registry.client import Countersign
from registry.documents import canonical
from registry.errors import Conflict, Fault, NotFound, RegistryError, Unavailable, Unverified
from registry.proof.keys import Context, SigningKey
from registry.rules import recipes
from registry.views.training_runs import EvalWork, TrainingWork, WorkView
from trainer import tracking
from trainer.cache import Cache
from trainer.child import follow
from trainer.lease import Gone, Lease
from trainer.outputs import Outputs
from trainer.roots import base_facts, roots

LOG = logging.getLogger("trainer.worker")


class Worker:
    """Trains and evaluates on one machine, one piece of work at a time."""

    def __init__(self, registry: Countersign, work_dir: Path, mlflow: str | None = None) -> None:
        """Lock the work folder and enrol this worker's key. Raises Conflict `work-dir-taken`."""
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
            raise Conflict("work-dir-taken", f"Another worker works in {work_dir}.") from None
        self._identity = _identity(work_dir)
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
        enrolled = self._registry.me().keys
        known = {entry.public_key for entry in enrolled if entry.revoked_at is None}
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
        """Work until `stopping` is set, asking every `poll` seconds.

        With `once` it ends when there is no work left, and raises when the registry is unreachable.
        """
        while not self.stopping.is_set():
            try:
                work = self._registry.lease(self._name, self._identity)
            except (Unavailable, Fault, Conflict) as error:
                # The registry is unreachable, or another worker was faster: no reason to end.
                LOG.warning("no work was leased: %s", error)
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
        """Do one leased piece of work up to its report. A failure is reported, never raised."""
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
                # The folder keeps everything done so far; the next attempt finds it there.
                LOG.error("%s is left for now, the registry stayed away: %s", work.id, error)
            except RegistryError as error:
                LOG.error("%s failed: %s", work.id, error)
                self._fail(lease, f"{error.kind}: {error}")
            except Exception as error:
                # A full disk, or a fault of the trainer: another attempt would fail the same way,
                # but the next piece of work may not.
                LOG.exception("%s failed", work.id)
                self._fail(lease, f"trainer-fault: {type(error).__name__}: {error}")
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _leave(self, lease: Lease, folder: Path) -> None:
        """Stop work that was cancelled or lost, or give it back because this worker stops."""
        reason = lease.state if lease.state != "held" else "this worker stops"
        LOG.info("%s is left: %s", lease.work.id, reason)
        if lease.state == "cancelled":
            shutil.rmtree(folder, ignore_errors=True)
        elif lease.state == "held":
            self._notify(
                lambda: self._registry.requeue(
                    lease.work.id, lease.work.attempt, "the worker was stopped"
                )
            )

    def _fail(self, lease: Lease, error: str) -> None:
        self._notify(lambda: self._registry.fail(lease.work.id, lease.work.attempt, error))

    def _notify(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except RegistryError as error:
            LOG.warning("the registry was not notified; the lease will run out: %s", error)

    def _train(self, lease: Lease, work: TrainingWork, folder: Path) -> None:
        recipe = recipes.parse(work.recipe)
        if canonical.digest(recipe.as_dict()) != work.recipe_digest:
            raise Unverified(
                "recipe-digest-mismatch",
                "The leased recipe does not have the digest that the lease names.",
            )
        rows = lease.patiently(lambda: self._cache.file(work.dataset.file.sha256))
        base = lease.patiently(lambda: self._cache.folder(work.base.files))
        facts = base_facts(work.base, self._read)
        job = {
            "kind": "training",
            "run": str(lease.work.id),
            "recipe": work.recipe,
            "adapter": work.adapter,
            "base": {
                "ref": work.base.ref,
                "folder": str(base),
                "repository": facts.repository,
                "commit": facts.commit,
            },
            "dataset": {
                "ref": work.dataset.ref,
                "file": str(rows),
                "sha256": work.dataset.file.sha256,
                "root": work.dataset.file_root,
            },
        }
        mlflow = self._mlflow or lease.work.mlflow_url
        tracker = tracking.track(mlflow, _topic(lease, work, recipe))
        status = "FAILED"
        outputs = Outputs(self._registry, lease, work, recipe, facts, folder / "published")
        try:
            outputs.restore()
            outcome = follow(lease, folder, job, tracker, outputs.register)
            link = tracker.close(status := "FINISHED", outputs.packed(recipe.steps))
            report = {
                "run": str(lease.work.id),
                "attempt": lease.work.attempt,
                "recipe_digest": work.recipe_digest,
                "base_root": work.base.root,
                "dataset_root": work.dataset.root,
                "rows_root": work.dataset.file_root,
                "outputs": outputs.report(),
                "meters": outcome.meters,
                "environment": outcome.environment,
                "first_row": outcome.first_row,
                "mlflow": None if link is None else {"run_id": link.run_id, "url": link.url},
            }
            self._finish(lease, report, "training-report")
        except Gone:
            status = "KILLED"
            raise
        finally:
            if status != "FINISHED":
                tracker.close(status, wait=5.0)

    def _evaluate(self, lease: Lease, work: EvalWork, folder: Path) -> None:
        subject = lease.patiently(lambda: self._cache.folder(work.subject.files))
        leased_base = work.base
        adapter = work.subject.kind == "adapter"
        # A checkpoint is a whole model: its base is part of its lineage, and is not loaded.
        base = (
            lease.patiently(lambda: self._cache.folder(leased_base.files))
            if adapter and leased_base is not None
            else None
        )
        items = lease.patiently(lambda: self._cache.file(work.items.sha256))
        subject_root, base_root = roots(work.subject, work.base if adapter else None, self._read)
        job = {
            "kind": "evaluation",
            "model": str(base or subject),
            "adapter": str(subject) if adapter else None,
            "items": str(items),
            "decoding": work.decoding,
        }
        outcome = follow(lease, folder, job, tracking.Untracked())
        samples = folder / "samples.jsonl"
        sent = lease.patiently(lambda: self._registry.put_file(samples))
        report = {
            "run": str(lease.work.id),
            "attempt": lease.work.attempt,
            "suite_digest": work.suite_digest,
            "subject_root": subject_root,
            "base_root": base_root,
            "samples_sha256": sent.sha256,
            "effect": outcome.effect,
            "meters": outcome.meters,
            "environment": outcome.environment,
        }
        self._finish(lease, report, "eval-report")

    def _finish(self, lease: Lease, report: dict[str, Any], context: Context) -> None:
        """Sign the report and hand it in until the registry confirms it.

        A report that arrives twice counts once.
        """
        lease.patiently(
            lambda: self._registry.finish(
                lease.work.id,
                lease.work.attempt,
                report,
                lambda document: self._key.sign_document(document, context),
            )
        )
        LOG.info("%s is finished", lease.work.id)


def _identity(work_dir: Path) -> str:
    """What makes the next process in this work folder the successor of this one.

    The caller holds the folder's lock, so no two live processes share it. The machine and the place
    are part of it: a copy of the folder is another worker.
    """
    path = work_dir / "worker.id"
    try:
        number = UUID(path.read_text("ascii").strip())
    except (FileNotFoundError, ValueError):
        number = uuid4()
        path.write_text(f"{number}\n", "ascii")
    return canonical.digest([str(number), socket.gethostname(), str(work_dir.resolve())])


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


def main(work_dir: Path, poll: float, *, once: bool) -> None:
    """Run a worker for the registry and token that the environment names.

    SIGTERM and Ctrl-C stop it and give its work back.
    """
    mlflow = os.environ.get("COUNTERSIGN_MLFLOW_URL")
    with Countersign() as registry, Worker(registry, work_dir, mlflow) as worker:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stopping.set())
        worker.run(poll, once=once)
