"""What the registry's rules say of files on this machine: roots, digests and the facts of a base.

The trainer computes them from the bytes it used. A value copied from the lease would prove nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from registry.artifacts.bundles import judge
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File, Read
from registry.client.blobs import hash_file
from registry.client.versions import bundle_files
from registry.documents import canonical
from registry.errors import BundleRejected, Unverified
from registry.rules import refs
from registry.views.training_runs import InputView

REGISTERED = Judge(lambda texts, tokens: [], ("registered",))
"""Accepts every chat template: a registered adapter's was judged when it entered the registry.

No root depends on it.
"""


def base_facts(base: InputView, read: Read) -> judge.BaseFacts:
    """The facts of a leased base that an adapter on it is judged by.

    They include its repository and commit, by which an adapter's configuration names its base.
    """
    files = [File(file.path, file.sha256, file.size) for file in base.files]
    commit = refs.commit(canonical.digest(judge.manifest_of(files)))
    facts = judge.base_facts(files, read, base_root=base.root)
    return replace(facts, repository=refs.repository(base.ref), commit=commit)


def bundle_digest(folder: Path, base: judge.BaseFacts) -> str:
    """The manifest digest that an adapter's bundle will be registered under.

    Raises BundleRejected where the registry's rules refuse the bundle.
    """
    files, paths = [], {}
    for path, inside in bundle_files(folder):
        sha256, size = hash_file(path)
        files.append(File(inside, sha256, size))
        paths[sha256] = path

    judged = judge.inspect("adapter", files, read_files(paths.__getitem__), base=base, meta={})
    if judged.defects:
        raise BundleRejected(judged.defects)
    return judged.manifest_digest


def roots(subject: InputView, base: InputView | None, read: Read) -> tuple[str, str]:
    """The tensor root and the base root of what was evaluated, computed from its bytes.

    `base` is what an adapter is loaded onto. A base or a checkpoint is a whole model and is judged
    alone. Raises Unverified `root-mismatch` where the bytes are not those that were leased.
    """
    facts = None
    if base is not None:
        files = _files(base)
        judged_base = judge.inspect("base", files, read, base=None, meta={})
        if not judged_base.is_base(base.root):
            raise _root_mismatch(base.ref, judged_base.base_root, base.root)
        facts = judge.base_facts(files, read, base_root=base.root)
    inspector = judge.Inspector(read, judge=REGISTERED)
    judged = inspector.inspect(subject.kind, _files(subject), base=facts, meta={})
    same = judged.tensor_root == subject.root if base else judged.is_base(subject.root)
    if judged.tensor_root is None or judged.base_root is None or not same:
        actual = judged.tensor_root if base else judged.base_root
        raise _root_mismatch(subject.ref, actual, subject.root)
    return judged.tensor_root, judged.base_root if base else subject.root


def _files(leased: InputView) -> list[File]:
    return judge.without_docs([File(file.path, file.sha256, file.size) for file in leased.files])


def _root_mismatch(ref: str, actual: str | None, leased: str) -> Unverified:
    return Unverified(
        "root-mismatch", f"The files of {ref} have the root {actual}, but {leased} was leased."
    )
