"""The base model of an adapter: its facts, and its name in the adapter's configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from registry.artifacts.bundles.texts import Texts
from registry.artifacts.defects import Defects
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.methods.effects import Stored
from registry.errors import Defect

NAME_THE_BASE = "Name the base it was trained on."


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A registered quantisation of a base; `verified`: recomputed from the bytes of both."""

    id: UUID
    ref: str
    number: int
    verified: bool


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What an adapter is compared with.

    These are the base's root, the shape of each of its tensors by name, its config.json, its texts,
    and where each tensor is stored.

    `repository` and `commit` are the one-version repository `team/name.v1` and the commit id of the
    registered version. The adapter's configuration is rewritten to name them. They are None when
    the base is inspected outside of a registry. `quantisations` are the registered quantisations of
    the base by their base roots.
    """

    base_root: str
    shapes: dict[str, tuple[int, ...]]
    config: Mapping[str, Any] = field(default_factory=dict)
    repository: str | None = None
    commit: str | None = None
    texts: Texts | None = None
    quantisations: Mapping[str, Quantisation] = field(default_factory=dict)
    tensors: Mapping[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedBase:
    """What an adapter's configuration calls its base, and the base it will be bound to.

    Only the registry knows which of its bases a name may mean. The code that registers the adapter
    looks those up and passes them to `defects` and `trained_on`.
    """

    name: str
    revision: str | None
    bound_to: BaseFacts

    def trained_on(self, roots: Collection[str]) -> Quantisation | None:
        """The quantisation of the base that the name means, the newest of several.

        An adapter that was trained on a verified quantisation belongs to the original.
        """
        quantisations = self.bound_to.quantisations
        if not roots or self.bound_to.base_root in roots or not quantisations.keys() >= set(roots):
            return None
        return max((quantisations[root] for root in roots), key=lambda known: known.number)

    def defects(self, roots: Collection[str]) -> list[Defect]:
        """The defect of a name that means other bases; `roots` are the bases it may mean.

        A name that means nothing registered, such as a folder or a model of another hub, is no
        defect: then `roots` is empty.
        """
        if not roots or self.bound_to.base_root in roots:
            return []
        name = (self.name if self.revision is None else f"{self.name} at {self.revision}")[:200]
        detail = (
            f"it names the registered base {name}, whose base root is "
            f"{', '.join(sorted(roots)[:3])}, but is to be bound to {self.bound_to.base_root}"
        )
        fix = NAME_THE_BASE
        if (trained_on := self.trained_on(roots)) is not None:
            quantisations = self.bound_to.quantisations
            if all(quantisations[root].verified for root in roots):
                return []
            detail = (
                f"it names {name}, which is only claimed to be a quantisation of the base that it "
                "is to be bound to"
            )
            fix = (
                f"Bind it to what it was trained on (--base {trained_on.ref}), or train it on the "
                "original or on a quantisation that was verified, such as NF4 of bitsandbytes."
            )
        defects = Defects()
        defects.append(Defect(CONFIG, "base_model_name_or_path", "base-mismatch", detail, fix))
        return defects.listed()
