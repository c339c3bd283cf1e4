"""The second half of the offline verifier: what was deleted was neither held, nor kept, nor stood
upon.

Lies beside verifier.py, which runs it on the rows it folds; standard library only. It judges what
rules/retention.py and PostgreSQL's guards demand, by the entries alone: an operator who went around
both, with the right key, is found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]
Changes = dict[
    tuple[str, str], tuple[Row | None, Row | None]
]  # of one entry: (table, key): the row before and after
Images = list[tuple[Row | None, Row]]  # of one table in one entry: the row before and after

# Columns that never change once a row is there, as in verifier.py; nothing named is the whole row.
FROZEN = {
    "tombstone": "",
    "deprecation": "",
    "retention_class": "",
    "retention_setting": "",
    "role_grant": "",
    "lineage_edge": "",
    "dataset": "",
    "version_file": "",
    "dataset_version": "dataset_id number blob_id created_at",
    "legal_hold": "number node_id line_id dataset_id case_commitment reason_commitment placed_by "
    "placed_at",
}
GONE = ("deleted", "recalled")
# State of a version or data set version -> the states that may follow it; None is before its birth.
STEPS = {
    None: "draft registered",
    "draft": "registered recalled deleted",
    "registered": "deprecated recalled deleted",
    "deprecated": "recalled deleted",
    "deleted": "recalled",
    "recalled": "",
}
EVERYWHERE = {
    "name": "standard",
    "keep_days": 184,
    "counted_from": "service",
}  # where nobody said another


class Keeping:
    """Holds, retention and deletions in the folded rows; `need` raises its sentence unless what it
    is given holds.
    """

    def __init__(
        self, rows: dict[str, dict[str, Row]], need: Callable[[object, str], None]
    ) -> None:
        self.rows, self.need = rows, need
        self.heirs = defaultdict[str, set[str]](set)

    def check(self, event: Row, changes: Changes, of: Callable[[str], Images]) -> None:
        """Judge one entry, whose rows are folded already."""
        versions = of("version") + of("dataset_version")
        states: dict[str, str | None] = {
            new["id"]: old["state"] if old else None for old, new in versions
        }
        for old, new in versions:
            self.version(event, old, new)
        for _, new in of("lineage_edge"):
            self.heirs[new["parent_id"]].add(new["child_id"])
        for _, new in of("deprecation"):
            name = f"deprecates {new['id']}"
            steps = states.get(new["id"]), self.thing(new["id"]).get("state")
            self.need(
                (event["actor"], event["at"]) == (new["deprecated_by"], new["at"]),
                f"{name} in another's name or time",
            )
            self.need(
                steps == ("registered", "deprecated"),
                f"{name}, which was not registered, or leaves it so",
            )
        for old, new in of("legal_hold"):
            self.hold(event, old, new)
        for _, new in of("retention_setting"):
            self.setting(event, new)
        for file in (
            old for (table, _), (old, _) in changes.items() if table == "version_file" and old
        ):
            was = states.get(file["version_id"], self.thing(file["version_id"])["state"])
            self.need(
                was == "draft", f"takes {file['path']} away from version {file['version_id']}"
            )
        for _, new in of("tombstone"):
            self.bury(event, new, states.get(new["id"], self.thing(new["id"]).get("state")))
        for old, new in of("route_generation"):
            ended = new["valid_to"] if old and not old["valid_to"] else None
            self.need(ended is None or ended >= event["at"], "ends a route before its own time")
        if blobs := {new["id"] for _, new in of("blob") if new.get("collected_at")}:
            self.collect(blobs)

    def thing(self, which: str) -> Row:
        """The version or data set version of that id."""
        return self.rows["version"].get(which) or self.rows["dataset_version"].get(which) or {}

    def is_a(self, role: str, account: str | None) -> bool:
        return any(
            (one["role"], one["account_id"]) == (role, account)
            for one in self.rows["role_grant"].values()
        )

    def held(self, which: str) -> list[int]:
        """The holds that stand over a thing, or over what derives from it by lineage or base."""
        found, wave = set[str](), {which}
        while wave:
            found |= wave
            wave = {heir for one in wave for heir in self.heirs.get(one, ())} - found
        found |= {
            self.thing(one).get("line_id") or self.thing(one).get("dataset_id") or one
            for one in found
        }
        standing = [one for one in self.rows["legal_hold"].values() if not one["lifted_at"]]
        return sorted(
            one["number"]
            for one in standing
            if found & {one["node_id"], one["line_id"], one["dataset_id"]}
        )

    def settings(self, team: str, kind: str | None, name: str | None) -> list[Row]:
        """What a line or a data set was put under, by itself or with its team, the oldest first."""
        near = [
            one
            for one in self.rows["retention_setting"].values()
            if one["team"] == team and (one["kind"], one["name"]) in ((None, None), (kind, name))
        ]
        return sorted(near, key=lambda one: int(one["number"]))

    def terms(self, settings: Sequence[Row]) -> Row:
        """The class in force where these were set: the newest of its own, else its team's, else
        what holds everywhere.
        """
        last = ([one for one in settings if one["kind"]] or list(settings))[-1:]
        classes = list(self.rows["retention_class"].values())
        if last:
            return next(one for one in classes if one["id"] == last[0]["class_id"])
        return next((one for one in classes if one["name"] == EVERYWHERE["name"]), EVERYWHERE)

    def kept_until(self, which: str, now: str) -> datetime:
        """The latest that any class says it was under since it was registered, counted from then or
        its last service.
        """
        thing = self.thing(which)
        since = thing.get("registered_at") or thing["created_at"]
        kind = "line" if "line_id" in thing else "dataset"
        line = self.rows[kind][thing[f"{kind}_id"]]
        near = self.settings(line["team"], kind, line["name"])
        under = [self.terms([one for one in near if one["set_at"] <= since])]
        own = min((one["set_at"] for one in near if one["kind"]), default="9")
        under += [
            self.terms([one])
            for one in near
            if one["set_at"] > since and (one["kind"] or own > one["set_at"])
        ]
        served = [since]
        for route in self.rows["route_generation"].values():
            base = self.rows["channel"][route["channel_id"]]["base_version_id"]
            if which in (route["stable_version_id"], route["candidate_version_id"], base):
                served.append(route["valid_to"] or now)
        ends = (
            (max(served) if one["counted_from"] == "service" else since, one["keep_days"])
            for one in under
        )
        return max(datetime.fromisoformat(start) + timedelta(days=days) for start, days in ends)

    def version(self, event: Row, old: Row | None, new: Row) -> None:
        """A version's times are those of its entries, and what is deleted bears a tombstone."""
        born = new.get("created_at") if old is None else None
        registered = new.get("registered_at") if not (old and old.get("registered_at")) else None
        self.need(
            {born, registered} <= {None, event["at"]},
            f"dates version {new['id']} otherwise than itself",
        )
        buried = new["id"] in self.rows["tombstone"]
        self.need(
            new["state"] in GONE if buried else new["state"] != "deleted",
            f"deletes or revives version {new['id']} without its tombstone",
        )
        before = old["state"] if old else None
        self.need(
            new["state"] == before or new["state"] in STEPS[before].split(),
            f"moves version {new['id']} from {before or 'nothing'} to {new['state']}",
        )
        deprecation = self.rows["deprecation"].get(new["id"])
        self.need(
            deprecation or new["state"] != "deprecated",
            f"deprecates version {new['id']} without a reason",
        )
        self.need(
            not deprecation or new["state"] not in ("draft", "registered"),
            f"holds a deprecation of version {new['id']} that is {new['state']}",
        )
        was, base = old and old.get("base_version_id"), new.get("base_version_id")
        if was and was != base:
            self.heirs[was].discard(new["id"])
        if base:
            self.heirs[base].add(new["id"])

    def hold(self, event: Row, old: Row | None, hold: Row) -> None:
        """A hold is lifted by another person than who placed it, and by a reviewer."""
        name, lifts = f"hold {hold['number']}", hold["lifted_at"] and not (old and old["lifted_at"])
        self.need(old or event["actor"] == hold["placed_by"], f"places {name} in another's name")
        self.need(
            not lifts or event["actor"] == hold["lifted_by"], f"lifts {name} in another's name"
        )
        self.need(
            not lifts or hold["lifted_by"] != hold["placed_by"],
            f"lifts {name} by the one who placed it",
        )
        self.need(
            not lifts or self.is_a("reviewer", hold["lifted_by"]),
            f"lifts {name} by one who is no reviewer",
        )

    def setting(self, event: Row, new: Row) -> None:
        """Only an administrator shortens what is kept."""
        name = f"puts {new['name'] or new['team']} under a class"
        self.need(
            (event["actor"], event["at"]) == (new["set_by"], new["set_at"]),
            f"{name} in another's name or time",
        )
        before = [
            one
            for one in self.settings(new["team"], new["kind"], new["name"])
            if one["id"] != new["id"]
        ]
        was, now = self.terms(before), self.terms([new])
        sooner = (now["counted_from"], was["counted_from"]) == ("registration", "service")
        shorter = now["keep_days"] < was["keep_days"] or sooner
        self.need(
            not shorter or self.is_a("admin", new["set_by"]),
            f"{name} that is shorter, and by no administrator",
        )

    def bury(self, event: Row, stone: Row, was: str | None) -> None:
        """A tombstone is set over what nothing holds, keeps or stands on; drafts are kept for no
        time.
        """
        which, now = stone["id"], event["at"]
        name = f"deletes {which}"
        self.need(
            (stone["was"], stone["at"]) == (was, now)
            and (was == "draft") == (stone["how"] != "deleted"),
            f"{name} otherwise than it stood",
        )
        self.need(self.thing(which)["state"] in GONE, f"{name} and lets it stand")
        held = self.held(which)
        self.need(not held, f"{name} while legal hold {held} stands over it")
        heirs = {
            one
            for one in self.heirs.get(which, ())
            if self.thing(one).get("state", "draft") != "draft"
        }
        heirs -= self.rows["tombstone"].keys()
        self.need(not heirs, f"{name} while {sorted(heirs)} stands on it")
        until = self.kept_until(which, now) if was != "draft" else datetime.fromisoformat(now)
        self.need(
            until <= datetime.fromisoformat(now), f"{name} before {until}, until when it is kept"
        )

    def collect(self, blobs: set[str]) -> None:
        """Bytes go only when all that names them is deleted, and nothing of that is held."""
        owners = {
            one["version_id"]
            for one in self.rows["version_file"].values()
            if one["blob_id"] in blobs
        }
        owners |= {
            one["id"] for one in self.rows["dataset_version"].values() if one["blob_id"] in blobs
        }
        kept = sorted(one for one in owners if one not in self.rows["tombstone"] or self.held(one))
        self.need(not kept, f"collects bytes of {kept}, which are held or not deleted")
