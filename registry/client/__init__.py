"""The typed, synchronous Python client of the command line, the trainer, the gateway and CI."""

from __future__ import annotations

from registry.client.accounts import Accounts, Sign
from registry.client.audit import Audit
from registry.client.blobs import OnBytes, Progress
from registry.client.chat_templates import ChatTemplates
from registry.client.datasets import Datasets
from registry.client.deprecations import Deprecations
from registry.client.evals import Evals
from registry.client.gates import Gates
from registry.client.imports import Imports, Origin
from registry.client.lineage import Lineage
from registry.client.policies import Policies
from registry.client.profiles import Profiles
from registry.client.retention import Retention
from registry.client.reviews import Reviews
from registry.client.rollouts import Rollouts
from registry.client.search import Search
from registry.client.tags import Tags
from registry.client.training_runs import NewTrainingRun, TrainingRuns
from registry.client.use_cases import UseCases
from registry.client.versions import NewVersion, Versions

__all__ = [
    "Countersign",
    "NewTrainingRun",
    "NewVersion",
    "OnBytes",
    "Origin",
    "Progress",
    "Sign",
]


class Countersign(
    Accounts,
    Imports,
    Versions,
    Lineage,
    ChatTemplates,
    Tags,
    Deprecations,
    Datasets,
    Policies,
    Profiles,
    UseCases,
    Evals,
    Gates,
    TrainingRuns,
    Reviews,
    Rollouts,
    Retention,
    Search,
    Audit,
):
    """A registry, used with one token. Each noun's methods are in the file of that noun.

    >>> with Countersign("http://127.0.0.1:8080", token) as registry:
    ...     registry.submit("acme/claims@v3", "production", "claims", "First claims adapter")

    Every failure is a RegistryError: of the family that the registry names, or Unavailable when the
    registry does not answer.
    """
