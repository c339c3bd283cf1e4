"""A log of one's own, with a hand that goes around every guard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

from sqlalchemy import create_engine, text

from registry.db.store import Store, open_engine
from registry.db.table import Table
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import audit
from registry.rules.actors import SYSTEM
from registry.sequencer import Sequencer, Witness

ORIGIN = "countersign.local/test"


class Log:
    """A log of one's own with its key, its sequencer, and a hand that goes around every guard."""

    def __init__(self, store: Store, url: str, home: Path) -> None:
        self.store, self.url = store, url
        self.key = SigningKey.generate()
        self.log_key = notes.verifier_key(ORIGIN, self.key.public)
        self.engine = open_engine(url, "countersign_sequencer")
        self.sequencer = Sequencer(Store(self.engine), self.key, ORIGIN, Witness(home / "heads"))

    @contextmanager
    def tampered(self, table: str, statement: str) -> Iterator[None]:
        """Change a table as its owner can, triggers off: what an intruder with his password would
        do. Then fix it.
        """
        key = {"leaf": "seq", "tree_head": "size"}.get(table, "id")
        columns = ", ".join(
            column.name for column in Table.metadata.tables[table].columns if not column.identity
        )
        other = f"not exists (select from kept where kept.{key} = now.{key})"
        self._as_owner(table, f"create table kept as table {table}", statement)
        try:
            yield
        finally:
            self._as_owner(
                table,
                f"update {table} now set ({columns}) = (select {columns} from kept where "
                f"kept.{key} = now.{key}) "
                f"where not {other}",
                f"delete from {table} now where {other}",
                f"insert into {table} overriding system value select * from kept where "
                f"not exists (select from {table} now where now.{key} = kept.{key})",
                "drop table kept",
            )

    def _as_owner(self, table: str, *statements: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(f"alter table {table} disable trigger user"))
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.execute(text(f"alter table {table} enable trigger user"))
        engine.dispose()

    def problems(self) -> list[str]:
        return audit.check(self.store, SYSTEM, self.log_key).problems

    def differences(self) -> list[str]:
        with self.store.read(SYSTEM) as session:
            return audit.rebuild(session).problems

    def pack(self) -> ZipFile:
        out = io.BytesIO()
        audit.export(self.store, SYSTEM, self.log_key, out)
        return ZipFile(out)
