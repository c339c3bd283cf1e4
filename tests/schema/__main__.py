"""Write migrations/schema.sql from a database that the migrations have just made."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sqlalchemy import create_engine

from tests.checkout import repository
from tests.database import open_databases
from tests.schema.writing import schema


def main() -> None:
    with tempfile.TemporaryDirectory() as home, open_databases(Path(home)) as databases:
        engine = create_engine(databases.migrated("schema"))
        with engine.connect() as connection:
            (repository() / "migrations" / "schema.sql").write_text(
                schema(connection), encoding="utf-8"
            )
        engine.dispose()
        databases.drop("schema")


if __name__ == "__main__":
    main()
