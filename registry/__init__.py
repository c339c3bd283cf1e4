"""Countersign's service: it keeps adapters, proves where they came from, and decides with people
what may serve.

rules       decides what is allowed; pure, standard library only
artifacts   says what a thing is: bundles, weights, methods, tokenizers, data sets
documents   one strict JSON, one strict YAML, one canonical form
proof       proves what happened: Merkle log, keys, signed notes
views       the frozen answers of commands and queries, by noun
blobs       bytes by digest: the store, drafts, resumable uploads
db          stores rows: tables by noun, and the store, which alone opens transactions
commands    everything that changes the registry: one function, one transaction, one audit entry
queries     everything that can be asked; read-only
api         the doors for machines: REST and the read side of the Hugging Face Hub
web         the door for people: the console
client      the Python client, used by the command line, trainers, gateways and CI
cli         the command line, on top of the client
gateway     the data plane: follows the routes, asks the engine, counts the arms
policies    the built-in policies, as YAML
postgres    the embedded PostgreSQL of `countersign up`, its directories, and the home
"""

from __future__ import annotations


def version() -> str:
    """The version of the installed package; `unknown` in a checkout that is not installed.

    pyproject.toml alone states the version.
    """
    from importlib import metadata

    try:
        return metadata.version("countersign")
    except metadata.PackageNotFoundError:
        return "unknown"
