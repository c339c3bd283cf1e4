"""The address of MLflow: no credentials are handed out, and no address of another machine's own."""

from __future__ import annotations

import pytest

from registry.rules.trackers import handed_out, run_page, without_credentials


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


RUN = "#/experiments/1/runs/ea02"
PUBLIC = "https://ann:secret@ml.example.org/mlflow/"


@pytest.mark.parametrize(
    ("reported", "public", "caller", "expected"),
    [
        (None, PUBLIC, "10.0.0.7", ""),
        (f"https://ml.example.org/{RUN}", None, "10.0.0.7", f"https://ml.example.org/{RUN}"),
        (f"https://eve:pw@ml.example.org/{RUN}", None, None, f"https://ml.example.org/{RUN}"),
        (f"http://127.0.0.1:8083/{RUN}", PUBLIC, None, f"https://ml.example.org/mlflow/{RUN}"),
        (f"http://[::1]:8083/{RUN}", PUBLIC, None, f"https://ml.example.org/mlflow/{RUN}"),
        (f"http://LOCALHOST/{RUN}", PUBLIC, None, f"https://ml.example.org/mlflow/{RUN}"),
        (
            f"http://localhost.example.com/{RUN}",
            PUBLIC,
            None,
            f"http://localhost.example.com/{RUN}",
        ),
        (f"http://127.0.0.1.x/{RUN}", PUBLIC, None, f"http://127.0.0.1.x/{RUN}"),
        (f"http://localhost:8083/{RUN}", None, "127.0.0.1", ""),
        (f"http://localhost:8083/{RUN}", "http://127.0.0.1:8083", "10.0.0.7", ""),
        (f"http://localhost/{RUN}", "http://[::1]:8083", "::1", f"http://[::1]:8083/{RUN}"),
        ("http://localhost:8083/", PUBLIC, "127.0.0.1", ""),
        (f"javascript://ml.example.org/{RUN}", PUBLIC, None, ""),
        (f"http://[::1/{RUN}", PUBLIC, None, ""),
        (f"http:///{RUN}", PUBLIC, None, ""),
    ],
)
def test_the_page_of_a_run(
    reported: str | None, public: str | None, caller: str | None, expected: str
) -> None:
    assert run_page(reported, public, caller) == expected
