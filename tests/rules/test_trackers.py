"""The address of MLflow: no credentials are handed out, and no address of another machine's own."""

from __future__ import annotations

import pytest

from registry.rules.trackers import handed_out, without_credentials


@pytest.mark.parametrize(
    ("url", "caller", "expected"),
    [
        (None, "127.0.0.1", None),
        ("https://ml.example.org/mlflow", "10.0.0.7", "https://ml.example.org/mlflow"),
        ("https://ann:secret@ml.example.org:8443", "10.0.0.7", "https://ml.example.org:8443"),
        ("https://ml.example.org/?token=secret#x", "10.0.0.7", "https://ml.example.org/"),
        ("http://127.0.0.1:8083", "127.0.0.1", "http://127.0.0.1:8083"),
        ("http://ann:p%40ss@localhost:8083", "::1", "http://localhost:8083"),
        ("http://127.0.0.1:8083", "10.0.0.7", None),
        ("http://[::1]:8083", "10.0.0.7", None),
        ("http://localhost:8083", None, None),
    ],
)
def test_what_a_worker_gets(url: str | None, caller: str | None, expected: str | None) -> None:
    assert handed_out(url, caller) == expected


def test_an_address_without_secrets_stays_as_it_is() -> None:
    assert without_credentials("http://ml:8083/a/b") == "http://ml:8083/a/b"
