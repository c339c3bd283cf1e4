"""The base model of an adapter: its facts, and its name in the adapter's configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.artifacts.bundles.bindings import Texts
from registry.artifacts.defects import Defects
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.methods.effects import Stored
from registry.errors import Defect

NAME_THE_BASE = "Name the base it was trained on."


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What an adapter is compared with.

    These are the base's root, the shape of each of its tensors by name, its config.json, its texts,
    and where each tensor is stored.

    `line` and `commit` are the `team/name` and the commit id of the registered version. The
    adapter's configuration is rewritten to name them. They are None when the base is inspected
    outside of a registry.
    """

    base_root: str
    shapes: dict[str, tuple[int, ...]]
    config: Mapping[str, Any] = field(default_factory=dict)
    line: str | None = None
    commit: str | None = None
    texts: Texts | None = None
    tensors: Mapping[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedBase:
    """What an adapter's configuration calls its base, and the root of the base it will be bound to.

    Only the registry knows which of its bases a name may mean. The code that registers the adapter
    looks those up and passes them to `defects`.
    """

    name: str
    revision: str | None
    bound_to: str

    def defects(self, roots: Collection[str]) -> list[Defect]:
        """The defect of a name that means other bases; `roots` are the bases it may mean.

        A name that means nothing registered, such as a folder or a model of another hub, is no
        defect: then `roots` is empty.
        """
        defects = Defects()
        if roots and self.bound_to not in roots:
            name = self.name if self.revision is None else f"{self.name} at {self.revision}"
            defects.append(
                Defect(
                    CONFIG,
                    "base_model_name_or_path",
                    "base-mismatch",
                    f"it names the registered base {name[:200]}, whose base root is "
                    f"{', '.join(sorted(roots)[:3])}, but is to be bound to {self.bound_to}",
                    NAME_THE_BASE,
                )
            )
        return defects.listed()
