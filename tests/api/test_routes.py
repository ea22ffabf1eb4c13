"""The route table: complete, consistent, and closed by default."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gpudev_service.api.documents import METRICS
from gpudev_service.api.openapi import document
from gpudev_service.api.route import Access, Call, NoQuery, Route, well_formed
from gpudev_service.api.routes import ROUTES
from gpudev_service.errors import CODES

CONTRACT = {
    ("GET", "/health"), ("GET", "/health/live"), ("GET", "/openapi.json"), ("GET", "/me"),
    ("GET", "/gpu-types"), ("PUT", "/gpu-types/{name}/maintenance"),
    ("DELETE", "/gpu-types/{name}/maintenance"), ("GET", "/availability"), ("POST", "/plan"),
    ("GET", "/reservations"), ("POST", "/reservations"), ("GET", "/reservations/{id}"),
    ("DELETE", "/reservations/{id}"), ("GET", "/reservations/{id}/extension"),
    ("POST", "/reservations/{id}/extension"), ("GET", "/reservations/{id}/history"),
    ("GET", "/reservations/{id}/events"), ("GET", "/events"), ("GET", "/reservations/{id}/launch"),
    ("PUT", "/reservations/{id}/server"), ("GET", "/disks"), ("POST", "/disks"),
    ("GET", "/disks/{name}"), ("PATCH", "/disks/{name}"), ("DELETE", "/disks/{name}"),
    ("POST", "/disks/{name}/restoration"), ("GET", "/disks/{name}/snapshots"),
    ("POST", "/disks/{name}/snapshots"), ("GET", "/disks/{name}/contents"),
    ("POST", "/disks/{name}/clones"), ("GET", "/cluster"),
    ("PUT", "/cluster/nodes/{node}/drain"), ("DELETE", "/cluster/nodes/{node}/drain"),
    ("POST", "/cli-tokens"), ("PUT", "/reservations/{id}/collaborators/{user}"),
    ("DELETE", "/reservations/{id}/collaborators/{user}"), ("GET", "/users/{user}/ssh-keys"),
    ("PUT", "/users/{user}/ssh-keys"), ("POST", "/users/{user}/ssh-keys"),
    ("DELETE", "/users/{user}/ssh-keys"), ("POST", "/reservations/{id}/ssh"),
    ("POST", "/reservations/{id}/snapshot"), ("GET", "/reservations/{id}/lab"),
    ("POST", "/reservations/{id}/ssh-tickets"), ("PUT", "/reservations/{id}/ssh-host"),
    ("POST", "/reservations/{id}/closing"), ("PUT", "/reservations/{id}/activity"),
    ("POST", "/reservations/{id}/keep"),
}  # fmt: skip
PUBLIC = {"health", "health_live", "openapi", "redeem_cli_login"}


async def nothing(call: Call[Any, Any]) -> None:
    return None


def test_the_table_has_what_the_contract_has() -> None:
    assert {(route.method, route.path) for route in ROUTES} == CONTRACT


def test_only_these_are_public() -> None:
    assert {route.name for route in ROUTES if route.access is Access.PUBLIC} == PUBLIC
    assert METRICS.access is Access.METRICS


def test_a_route_without_access_cannot_be() -> None:
    with pytest.raises(TypeError):
        Route("x", "GET", "/x", operation=nothing, summary="")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no access"):
        Route("x", "GET", "/x", None, nothing, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "FETCH"}, "unknown method"),
        ({"path": "/x/{colour}"}, "colour"),
        ({"errors": ("oh_no",)}, "oh_no"),
        ({"access": Access.SPAWNER}, "needs a reservation"),
        ({"access": Access.RESERVATION_READ}, "needs a reservation"),
        ({"access": Access.LAB}, "needs a reservation"),
        ({"access": Access.PERSON_READ}, "needs a user"),
        ({"access": Access.LEAVE, "path": "/reservations/{id}"}, "needs a user"),
    ],
)
def test_a_route_that_contradicts_itself_cannot_be(changes: dict[str, Any], message: str) -> None:
    good = Route("x", "GET", "/x", Access.READ, nothing, "")
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **changes)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_call_that_makes_something_can_find_it_again(route: Route) -> None:
    """Otherwise a crash between effect and answer would make a retry do it twice."""
    if route.method == "POST" and not route.secret and route.name != "plan_reservation":
        assert route.recall is not None


@pytest.mark.parametrize(
    ("parameters", "good"),
    [
        ({"id": "abcdefghij012345"}, True),
        ({"id": "abcdefghij01234"}, False),
        ({"id": "abcdefghij012345\n"}, False),
        ({"id": "ABCDEFGHIJ012345"}, False),
        ({"name": "my-disk_1.x"}, True),
        ({"name": ".."}, False),
        ({"name": "a/b"}, False),
        ({"name": ""}, False),
        ({"name": "x" * 64}, False),
        ({"node": "gpu-1.example"}, True),
        ({"node": "gpu 1"}, False),
        ({"user": "ada@example.org"}, True),
        ({"user": "Zoë Grün"}, True),
        ({"user": ""}, False),
        ({"user": "a/b"}, False),
        ({"user": "ada\n"}, False),
        ({"user": "x" * 256}, False),
    ],
)
def test_path_parameters(parameters: dict[str, str], good: bool) -> None:
    assert well_formed(parameters) is good


def test_the_document_is_openapi() -> None:
    spec = document(ROUTES, "/services/gpudev/api/v1")
    errors = [str(error) for error in OpenAPIV31SpecValidator(spec).iter_errors()]
    assert errors == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_the_document_says_how_a_route_refuses(route: Route) -> None:
    operation = document(ROUTES, "/")["paths"][route.path][route.method.lower()]
    assert operation["operationId"] == route.name
    assert {str(CODES[code]) for code in route.codes} <= set(operation["responses"])
    assert bool(operation["security"]) is (route.access is not Access.PUBLIC)
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert set(route.query.model_fields) <= names
    assert ("requestBody" in operation) is (route.body is not None)
    assert NoQuery.model_fields == {}
