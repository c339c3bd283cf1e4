"""The address of an MLflow server as it may be shown or handed out."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit


def without_credentials(url: str) -> str:
    """The address without user name, password, query and fragment, any of which may be a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def handed_out(url: str | None, caller: str | None) -> str | None:
    """The address that a worker gets with its work, or None.

    It carries no credentials: a worker that needs some has them in its own settings. An address of
    this machine means another server on any other one, so only callers on this machine get it.
    """
    if url is None:
        return None
    host = urlsplit(url).hostname or ""
    return None if _is_local(host) and not _is_local(caller or "") else without_credentials(url)


def run_page(reported: str | None, public: str | None, caller: str | None) -> str:
    """The page of a run in MLflow as this caller can open it, else ''.

    `reported` is the address that the run's trainer used. One of the trainer's own machine leads
    nowhere from others: the `public` address takes its place, if the caller may get that one.
    """
    address, _, place = (reported or "").partition("#")
    try:
        parts = urlsplit(address)
    except ValueError:  # a trainer may report anything
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    if not _is_local(parts.hostname):
        server: str | None = without_credentials(address)
    else:
        server = handed_out(public, caller) if place else None
    if server is None or not place:
        return server or ""
    return f"{server.rstrip('/')}/#{place}"


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
