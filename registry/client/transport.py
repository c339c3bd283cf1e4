"""How the client speaks HTTP: one request at a time, retried while the registry is unreachable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from registry.client.answers import error_of, read
from registry.client.retries import Retry
from registry.errors import Invalid, RegistryError, Unauthenticated, Unavailable
from registry.rules.refs import parse_ref

T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)

PATIENCE = 10.0
"""Seconds for which a safe request is retried; a restarted PostgreSQL is back within five."""
SLOW = 900.0
"""Timeout in seconds for requests that read every byte of a large bundle."""


class Page(Protocol[Item_co]):
    """One page of a listing; `next` is the cursor of the page after it."""

    @property
    def items(self) -> Sequence[Item_co]: ...

    @property
    def next(self) -> str | None: ...


class Transport:
    """One registry and one token. Safe to share between threads: a worker and its heartbeat do."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        on_wait: Callable[[RegistryError], None] | None = None,
    ) -> None:
        """Address a registry; None reads COUNTERSIGN_URL and COUNTERSIGN_TOKEN.

        `on_wait` receives the error that causes each retry. Raises Invalid without a usable URL and
        Unauthenticated without a token.
        """
        self.url = (url or os.environ.get("COUNTERSIGN_URL", "")).rstrip("/")
        host = _host(self.url)
        token = token or os.environ.get("COUNTERSIGN_TOKEN", "")
        if not token:
            raise Unauthenticated("no-token", f"There is no token for {self.url}.")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Unauthenticated("bad-token", "The token contains characters that no token has.")
        self._timeout = timeout
        self._on_wait = on_wait
        # The proxies of the environment are for the internet: none can reach our own loopback.
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            trust_env=not _loopback(host),
            headers={"Authorization": f"Bearer {token}", "User-Agent": "countersign-client"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self) -> bool:
        """Whether the registry answers /readyz with 200 now; False when it is unreachable."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _get(self, path: str, into: type[T], *, timeout: float | None = None, **params: Any) -> T:
        def attempt() -> T:
            with self._open("GET", path, timeout=timeout, params=_present(params)) as response:
                return read(response, into)

        return self._patiently(attempt)

    def _post(
        self, path: str, into: type[T], body: Mapping[str, Any], *, timeout: float | None = None
    ) -> T:
        """Send a change, retried only if no connection was made: it is never sent twice."""

        def attempt() -> T:
            with self._open("POST", path, timeout=timeout, json=dict(body)) as response:
                return read(response, into)

        return self._patiently(attempt, only_unsent=True)

    def _post_or_none(self, path: str, into: type[T], body: Mapping[str, Any]) -> T | None:
        """Send a change whose answer may be 204, which means None."""

        def attempt() -> T | None:
            with self._open("POST", path, json=dict(body)) as response:
                return (
                    None if response.status_code == httpx.codes.NO_CONTENT else read(response, into)
                )

        return self._patiently(attempt, only_unsent=True)

    def _change(self, path: str, body: Mapping[str, Any]) -> None:
        """Send a change whose answer has no content."""

        def attempt() -> None:
            with self._open("POST", path, json=dict(body)) as response:
                response.read()

        self._patiently(attempt, only_unsent=True)

    def _delete(self, path: str) -> None:
        def attempt() -> None:
            with self._open("DELETE", path) as response:
                response.read()

        self._patiently(attempt, only_unsent=True)

    def _items(self, path: str, page: type[Page[T]], **params: Any) -> Iterator[T]:
        """Yield every item of a listing, page after page."""
        cursor: str | None = None
        while True:
            answer = self._get(path, page, cursor=cursor, **params)
            yield from answer.items
            cursor = answer.next
            if cursor is None:
                return

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        timeout: float | httpx.Timeout | None = None,
        accept: int | None = None,
        **options: Any,
    ) -> Iterator[httpx.Response]:
        """Send one request; yield its response before the body is read.

        Raises the error that a refusal describes, and Unavailable when the registry is unreachable.
        The caller handles the status `accept` itself.
        """
        if timeout is not None:
            options["timeout"] = (
                timeout
                if isinstance(timeout, httpx.Timeout)
                else httpx.Timeout(timeout, connect=5.0)
            )
        try:
            with self._http.stream(method, f"/api/v1{path}", **options) as response:
                if (
                    response.status_code >= httpx.codes.BAD_REQUEST
                    and response.status_code != accept
                ):
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.RequestError as error:
            sent = not isinstance(
                error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout
            )
            raise Unavailable(
                "unreachable",
                f"The registry at {self.url} does not answer: "
                f"{str(error) or type(error).__name__}.",
                sent=sent,
            ) from error

    def _patiently(self, attempt: Callable[[], T], *, only_unsent: bool = False) -> T:
        """Retry while the registry is unreachable, at most PATIENCE seconds from the first failure.

        A change (`only_unsent`) is retried only if no connection was made at all, so that it is
        never sent twice.
        """

        def is_passing(error: Exception) -> bool:
            if not isinstance(error, Unavailable):
                return False
            return not (only_unsent and error.facts.get("sent", True))

        def on_wait(error: Exception, _: float) -> None:
            if self._on_wait is not None and isinstance(error, RegistryError):
                self._on_wait(error)

        return Retry(is_passing, PATIENCE, first=0.2, longest=2.0).call(attempt, on_wait=on_wait)


def ref_path(ref: str) -> str:
    """Quote a reference for a URL path. Raises Invalid when it is not a reference."""
    return quote(str(parse_ref(ref)), safe="/@:")


def _present(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _host(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(
            "no-url",
            f"'{url[:120]}' is not the address of a registry."
            if url
            else "No registry is configured.",
        )
    return parts.hostname


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
