"""The versions that a training run publishes: registered as their steps appear, each once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from registry.artifacts.bundles.judge import BaseFacts
from registry.client import Countersign, NewVersion
from registry.errors import NotFound, Refused, Unverified
from registry.rules.recipes import Recipe
from registry.views.training_runs import TrainingWork
from trainer.lease import Lease
from trainer.roots import bundle_digest

LOG = logging.getLogger("trainer.outputs")


@dataclass(slots=True)
class Outputs:
    """The versions of one training run by step, as its report lists them.

    `folder` holds the packed bundles step-N. `base` is what the registry's rules judge them by.
    """

    registry: Countersign
    lease: Lease
    work: TrainingWork
    recipe: Recipe
    base: BaseFacts
    folder: Path
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)

    def packed(self, step: int) -> Path:
        """The folder of a step's bundle. It exists once the bundle is complete."""
        return self.folder / f"step-{step}"

    def report(self) -> list[dict[str, Any]]:
        """The versions in the order of their steps, as the training report lists them."""
        return [self.versions[step] for step in self.recipe.publish_at]

    def restore(self) -> None:
        """Take over the versions that an earlier attempt registered, on this machine or another.

        A draft does not count: registering it again says what it lacks. Raises Refused
        `output-discarded`, before any training, where a version was discarded meanwhile.
        """
        for step, ref in self.work.published.items():
            try:
                version = self.lease.patiently(partial(self.registry.version, ref))
            except NotFound as error:
                raise Refused(
                    "output-discarded",
                    f"{ref}, which this training run made at step {step}, was discarded while the "
                    f"run went on. {error}",
                ) from None
            if version.state != "draft":
                self._add(int(step), ref, version.manifest_digest)

    def register(self) -> None:
        """Register every packed step that the registry does not have yet.

        The registry's rules are applied here first, so that a fault of the trainer is found while
        the files are at hand and before anything is sent. Raises BundleRejected, Refused
        `output-incomplete`, Unverified `manifest-mismatch`.
        """
        for step in self.recipe.publish_at:
            if step in self.versions or not self.packed(step).is_dir():
                continue
            digest = bundle_digest(self.packed(step), self.base)
            # The registry adds what the requester wrote (purpose, domain) from the training run.
            added = self.lease.patiently(
                # Mypy cannot infer a lambda with defaults.
                lambda step=step: self.registry.add(  # type: ignore[misc]
                    "adapter",
                    self.packed(step),
                    NewVersion(
                        self.work.adapter,
                        base=self.work.base.ref,
                        meta={"base_root": self.work.base.root},
                        training_run=self.lease.work.id,
                        attempt=self.lease.work.attempt,
                        step=step,
                    ),
                )
            )
            if added.status == "draft":
                missing = "; ".join(each.detail for each in added.findings if each.blocks)
                raise Refused(
                    "output-incomplete",
                    f"The version at step {step} stays a draft: {missing}.",
                    "Queue the training again with these facts in its meta.",
                )
            if added.digest != digest:
                raise Unverified(
                    "manifest-mismatch",
                    f"Step {step} was packed as {digest} and registered as {added.digest}.",
                    "Ask an administrator to run countersign doctor.",
                )
            LOG.info("step %d is %s", step, added.ref)
            self._add(step, added.ref, added.digest)

    def _add(self, step: int, ref: str, digest: str | None) -> None:
        self.versions[step] = {"step": step, "ref": ref, "manifest_digest": digest}
