"""The Python client, typed and synchronous: what the command line, the trainer, the gateway and CI
use.
"""

from __future__ import annotations

from registry.client.accounts import Accounts, Sign
from registry.client.audit import Audit
from registry.client.blobs import OnBytes, Progress
from registry.client.datasets import Datasets
from registry.client.evals import Evals
from registry.client.imports import Imports
from registry.client.policies import Policies
from registry.client.profiles import Profiles
from registry.client.retention import Retention
from registry.client.reviews import Reviews
from registry.client.rollouts import Rollouts
from registry.client.search import Search
from registry.client.training_runs import TrainingRuns
from registry.client.versions import Versions

__all__ = ["Countersign", "OnBytes", "Progress", "Sign"]


class Countersign(
    Accounts,
    Imports,
    Versions,
    Datasets,
    Policies,
    Profiles,
    Evals,
    TrainingRuns,
    Reviews,
    Rollouts,
    Retention,
    Search,
    Audit,
):
    """A registry, spoken to with one token; each noun's methods are in the file of that noun.

    >>> with Countersign("http://127.0.0.1:8080", token) as registry:
    ...     registry.submit("acme/claims@v3", "production", "claims", "First claims adapter")

    Every failure is a RegistryError: of the family the registry named, or Unavailable when it does
    not answer.
    """
