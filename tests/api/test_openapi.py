"""What the OpenAPI document allows, the door takes; what the door answers, the document names.

The requests are made from the document itself, a few for each operation.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.api.conftest import Door, opened
from tests.build import Person, a_person, install_classes, install_policies
from tests.database import Databases

Schema = dict[str, Any]
MEANINGS = {
    "bad-cursor",
    "bad-key",
    "bad-policy",
    "bad-proof-range",
    "bad-recipe",
    "bad-retention",
    "domain-missing",
    "environment-not-for-role",
    "bad-tag",
}
"""Kinds of family `invalid` for what no schema can say; any other refuses a form it allows."""
PLAIN = st.characters(min_codepoint=33, max_codepoint=126)
TEXT = st.text(PLAIN, max_size=20)


@pytest.fixture(scope="module")
def own(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A registry of its own: random requests change what other tests count."""
    name = f"openapi_{secrets.token_hex(4)}"
    with opened(databases.migrated(name), tmp_path_factory.mktemp("openapi")) as door:
        install_policies(door.store)
        install_classes(door.store)
        yield door
    databases.drop(name)


@pytest.fixture(scope="module")
def person(own: Door) -> Person:
    """Somebody who may do all that people may."""
    return a_person(own.store, "admin", "engineer", "reviewer", "auditor")


@pytest.fixture(scope="module")
def document(own: Door) -> Schema:
    served: Schema = own.client.get("/api/v1/openapi.json").json()
    return served


def values(schema: Schema, models: Schema) -> st.SearchStrategy[Any]:
    """Values that a schema of this document allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return TEXT if name == "Json" else values(models[name], models)
    if "anyOf" in schema:
        outer = {key: value for key, value in schema.items() if key != "anyOf"}
        return st.one_of(*(values({**outer, **each}, models) for each in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        return st.one_of(*(values({**schema, "type": each}, models) for each in kind))
    match kind:
        case "object":
            return objects(schema, models)
        case "array":
            items = values(schema.get("items", {}), models)
            unique = schema.get("uniqueItems", False)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=2, unique=unique)
        case "integer":
            return st.integers(
                schema.get("minimum", -(2**53) + 1), schema.get("maximum", 2**53 - 1)
            )
        case "number":
            below = schema.get("exclusiveMaximum")
            return st.floats(
                schema.get("minimum"),
                below or schema.get("maximum"),
                exclude_max=below is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    match schema.get("format"):
        case "uuid":
            return st.uuids().map(str)
        case "date":
            return st.dates().map(str)
        case "date-time":
            return st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
    if "pattern" in schema:
        most = schema.get("maxLength", 10_000)
        # Searching for what is no plain letter takes long, and proves nothing more of the form.
        texts = st.from_regex(schema["pattern"], fullmatch=True, alphabet=PLAIN)
        return texts.filter(lambda text: len(text) <= most)
    return TEXT


def objects(schema: Schema, models: Schema) -> st.SearchStrategy[Any]:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return st.fixed_dictionaries(
        {name: values(properties[name], models) for name in required},
        optional={
            name: values(inner, models)
            for name, inner in properties.items()
            if name not in required
        },
    )


def requests(
    path: str, method: str, operation: Schema, models: Schema
) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of an operation that the document allows, as keywords for the client."""
    parts: dict[str, dict[str, st.SearchStrategy[Any]]] = {"path": {}, "query": {}, "header": {}}
    optional: dict[str, dict[str, st.SearchStrategy[Any]]] = {"query": {}, "header": {}}
    for parameter in operation.get("parameters", []):
        into = parts if parameter.get("required") else optional
        into[parameter["in"]][parameter["name"]] = values(parameter["schema"], models)
    content = operation.get("requestBody", {}).get("content", {})
    body = (
        values(content["application/json"]["schema"], models)
        if "application/json" in content
        else st.none()
    )

    def made(path_values: Any, query: Any, headers: Any, given_body: Any) -> dict[str, Any]:
        filled = path
        for name, value in path_values.items():
            filled = filled.replace(f"{{{name}}}", quote(str(value), safe="/"))
        headers = {name: str(value) for name, value in headers.items()}
        return {
            "method": method.upper(),
            "url": filled,
            "params": query,
            "headers": headers,
            **({} if given_body is None else {"json": given_body}),
        }

    return st.builds(
        made,
        st.fixed_dictionaries(parts["path"]),
        st.fixed_dictionaries(parts["query"], optional=optional["query"]),
        st.fixed_dictionaries(parts["header"], optional=optional["header"]),
        body,
    )


def check(answer: httpx.Response, operation: Schema, models: Schema) -> None:
    """The answer is one that the operation documents."""
    request = answer.request
    shown = (
        f"{request.method} {request.url} {request.content!r}: {answer.status_code} {answer.text}"
    )
    documented = operation["responses"].get(str(answer.status_code))
    assert documented is not None, shown
    assert answer.status_code < 500, shown
    if not answer.content:
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in documented.get("content", {}), shown
    if "json" in kind:
        schema = {**documented["content"][kind]["schema"], "components": {"schemas": models}}
        Draft202012Validator(schema).validate(answer.json())
    if answer.status_code == 422 and (problem := answer.json())["family"] == "invalid":
        assert problem["kind"] in MEANINGS, shown


def test_what_the_document_allows_is_taken_and_what_is_answered_is_in_it(
    own: Door, person: Person, document: Schema
) -> None:
    models = document["components"]["schemas"]
    token = {"Authorization": f"Bearer {own.token(person)}"}
    wrong = []
    for path, item in document["paths"].items():
        for method, operation in item.items():

            @settings(
                max_examples=2,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(requests(path, method, operation, models))
            def ask(request: dict[str, Any]) -> None:
                headers = request["headers"] | token
                answer = own.client.request(**request | {"headers": headers})
                check(answer, operation, models)  # noqa: B023 - asked before the next is looked at

            try:
                ask()
            except AssertionError as error:
                wrong.append(f"{method} {path}: {error}")
    assert not wrong, "\n".join(wrong)


def test_a_method_a_path_does_not_take_is_told_the_methods_it_takes(
    own: Door, person: Person, document: Schema
) -> None:
    for path, item in document["paths"].items():
        filled = re.sub(r"\{\w+\}", "0" * 64, path)
        taken = {method.upper() for method in item}
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - taken:
            answer = own.client.request(method, filled)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == taken, (method, path)


def test_every_refused_request_is_documented_for_nobody_too(own: Door, document: Schema) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["security"] == [{"HTTPBearer": []}]
            assert {"401", "403", "500", "503"} <= operation["responses"].keys()
