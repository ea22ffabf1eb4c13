"""One call: when it is repeated, when it is not, and what it raises in the end."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import _calls as calls
from gpudev_client import errors, limits, models
from gpudev_client._flow import RETRY, Retry, collect, items, segment
from gpudev_client._steps import Emit, Flow, Reply
from gpudev_service.errors import CODES

from .models import ID, NOW, ok, refused, reservation
from .playing import CUT, Played

REQUEST = models.ReservationRequest(gpu_type="t4", gpus=1, hours=0.5)
PROXY_PAGE = Reply(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>")


def test_an_answer_is_read() -> None:
    played = Played(calls.reservation(ID), [ok(reservation())])
    assert played.result == reservation()
    assert [(c.method, c.path) for c in played.calls] == [("GET", f"/reservations/{ID}")]
    assert "Idempotency-Key" not in played.calls[0].headers


def test_a_mutating_call_is_repeated_under_one_key() -> None:
    played = Played(calls.reserve(REQUEST), [CUT, PROXY_PAGE, CUT, ok(reservation(), 201)])
    assert played.result == reservation()
    keys = {call.headers["Idempotency-Key"] for call in played.calls}
    assert len(played.calls) == 4
    assert len(keys) == 1
    assert re.fullmatch(limits.IDEMPOTENCY_KEY, keys.pop())
    assert len({call.body for call in played.calls}) == 1


def test_two_calls_have_two_keys_and_a_given_one_is_kept() -> None:
    first, second = (Played(calls.reserve(REQUEST), [ok(reservation())]) for _ in range(2))
    given = Played(calls.reserve(REQUEST, idempotency_key="my-own-key"), [ok(reservation())])
    keys = [p.calls[0].headers["Idempotency-Key"] for p in (first, second, given)]
    assert len(set(keys)) == 3
    assert keys[2] == "my-own-key"


@pytest.mark.parametrize("answer", [CUT, PROXY_PAGE, refused(503, "unavailable", "Away.")])
def test_tries_are_bounded_and_end_as_unreachable(answer: Reply | Exception) -> None:
    played = Played(calls.cancel(ID), [answer] * RETRY.attempts)
    assert isinstance(played.error, errors.Unreachable)
    assert len(played.calls) == RETRY.attempts
    assert len(played.pauses) == RETRY.attempts - 1


@given(st.integers(min_value=1, max_value=10_000))
def test_pauses_grow_and_stay_bounded(failures: int) -> None:
    retry = Retry(first=0.5, longest=8.0)
    assert 0.25 < retry.pause(failures) <= 10.0
    assert retry.pause(1) < 1.0


@pytest.mark.parametrize(
    ("status", "keyed"),
    [("starting", False), ("running", False), ("stopped", True), ("failed", True), ("note", True)],
)
def test_no_books_are_kept_of_where_a_start_stands(
    status: Literal["starting", "running", "stopped", "failed", "note"], keyed: bool
) -> None:
    report = models.ServerReport(status=status)
    played = Played(calls.report_server("a" * 12, report), [ok(reservation())])
    assert ("Idempotency-Key" in played.calls[0].headers) is keyed


def test_the_service_says_how_long_to_wait() -> None:
    later = Reply(503, {"retry-after": "3"}, b"")
    played = Played(calls.me(), [later, refused(401, "not_authenticated")])
    assert played.pauses == [3.0]
    assert isinstance(played.error, errors.NotAuthenticated)


def test_a_long_wait_is_told_instead_of_slept() -> None:
    played = Played(calls.me(), [Reply(429, {"retry-after": "3600"}, b"{}")])
    assert played.pauses == []
    assert played.error is not None


def test_a_repeated_call_waits_for_its_first_copy() -> None:
    played = Played(calls.reserve(REQUEST), [CUT, refused(409, "in_progress"), ok(reservation())])
    assert played.result == reservation()


@pytest.mark.parametrize(
    "answer",
    [
        refused(409, "quota"),
        refused(422, "invalid_input"),
        refused(401, "not_authenticated"),
        refused(500, "internal"),
    ],
)
def test_what_will_not_change_is_not_repeated(answer: Reply) -> None:
    played = Played(calls.reserve(REQUEST), [answer])
    assert played.error is not None
    assert len(played.calls) == 1


def test_a_refusal_carries_everything() -> None:
    answer = refused(422, "invalid_input", "Too many.", field="gpus", accepted=[1, 2, 4])
    error = Played(calls.reserve(REQUEST), [answer]).error
    assert isinstance(error, errors.InvalidInput)
    assert (error.code, error.message, error.field) == ("invalid_input", "Too many.", "gpus")
    assert (error.accepted, error.status) == ([1, 2, 4], 422)


@pytest.mark.parametrize(("code", "status"), CODES.items())
def test_every_code_of_the_service_has_its_place(code: str, status: int) -> None:
    if status in {429, 503} or code == "in_progress":
        told = [refused(status, code)] * RETRY.attempts
    else:
        told = [refused(status, code)]
    error = Played(calls.me(), told).error
    if status == 503:
        assert isinstance(error, errors.Unreachable)
    elif status == 500:
        assert isinstance(error, errors.ServerFault)
        assert error.request_id == "r1"
    else:
        assert isinstance(error, errors.RefusalError)
        assert error.code == code


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, {}, b""),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b'{"id": 1}'),
        Reply(200, {}, b"\xff\xfe"),
        Reply(404, {"content-type": "text/html"}, b"<html>404 : Not Found</html>"),
        Reply(400, {}, b'{"error": "not ours"}'),
        Reply(400, {}, b"[" * 100_000),
    ],
)
def test_an_answer_that_is_not_ours_is_a_fault(answer: Reply) -> None:
    assert isinstance(Played(calls.reservation(ID), [answer]).error, errors.ServerFault)


def test_a_redirect_is_not_followed_and_its_query_not_told() -> None:
    target = "https://elsewhere.example/hub/login?next=secret"
    error = Played(calls.me(), [Reply(302, {"location": target}, b"")]).error
    assert isinstance(error, errors.ServerFault)
    assert "https://elsewhere.example" in str(error)
    assert "secret" not in str(error)


def test_a_list_is_read_page_by_page() -> None:
    pages = [
        models.Page[models.Reservation](items=[reservation(name="a")], next_cursor="x y"),
        models.Page[models.Reservation](items=[], next_cursor="z"),
        models.Page[models.Reservation](items=[reservation(name="b")]),
    ]
    listed = calls.reservations(user="*", states=["queued", "active"])
    played = Played(items(listed.call, listed.kind), [ok(page) for page in pages])
    assert [r.name for r in played.emitted] == ["a", "b"]
    assert [dict(call.params).get("cursor") for call in played.calls] == [None, "x y", "z"]
    assert [value for key, value in played.calls[0].params if key == "state"] == [
        "active",
        "queued",
    ]
    gathered = Played(
        collect(items(listed.call, listed.kind)), [ok(pages[0]), CUT, *map(ok, pages[1:])]
    )
    assert [r.name for r in gathered.result] == ["a", "b"]


def test_a_fleet_is_read_page_by_page_and_its_queue_once() -> None:
    def page(*names: str, queue: int = 0, following: str | None = None) -> models.Cluster:
        waiting = models.QueueEntry(
            position=1, gpu_type="t4", gpus=1, hours=1, promised_start=None, mine=True
        )
        return models.Cluster(
            nodes=[models.NodeView(name=n, gpu_type="t4", units=4, free=4) for n in names],
            queue=[waiting] * queue, queue_lengths={"t4": 7}, simulated=False, at=NOW,
            next_cursor=following,
        )  # fmt: skip

    # A node was added at the front between two pages.
    pages = [page("a", "b", queue=2, following="x"), page("b", "c", following="y"), page("d")]
    played = Played(calls.cluster(2), list(map(ok, pages)))
    assert [node.name for node in played.result.nodes] == ["a", "b", "c", "d"]
    assert (len(played.result.queue), played.result.queue_lengths) == (2, {"t4": 7})
    assert played.result.next_cursor is None
    asked = [dict(call.params) for call in played.calls]
    assert [(one.get("queue"), one.get("cursor")) for one in asked] == [
        ("2", None),
        ("0", "x"),
        ("0", "y"),
    ]
    endless = Played(calls.cluster(), [ok(page("a", following="x"))] * 2)
    assert isinstance(endless.error, errors.ServerFault)


def test_a_list_without_an_end_is_noticed() -> None:
    page = models.Page[models.Reservation](items=[reservation()], next_cursor="same")
    listed = calls.reservations()
    played = Played(items(listed.call, listed.kind), [ok(page), ok(page)])
    assert isinstance(played.error, errors.ServerFault)


def test_an_emitting_flow_cleans_up_when_it_is_left() -> None:
    closed = []

    def emitting() -> Flow[None]:
        try:
            yield Emit(1)
            yield Emit(2)
        finally:
            closed.append(True)

    flow = emitting()
    assert next(flow) == Emit(1)
    flow.close()
    assert closed == [True]


@given(st.text())
def test_a_name_stays_one_segment_of_the_path(name: str) -> None:
    if name in ("", ".", "..") or any("\ud800" <= c <= "\udfff" for c in name):
        with pytest.raises(errors.NotFound):
            segment(name, "disk")
        return
    quoted = segment(name, "disk")
    assert not set("/?#\\ %") & set(re.sub("%[0-9A-F]{2}", "", quoted))
    assert unquote(quoted) == name


def test_times_go_out_with_their_zone() -> None:
    played = Played(calls.clone_disk("a", "b", at=NOW), [ok({"name": "b"})])
    assert b'"at":"2026-05-12T14:30:00Z"' in (played.calls[0].body or b"")


def test_what_was_not_given_is_not_sent() -> None:
    played = Played(calls.reserve(REQUEST), [ok(reservation())])
    assert played.calls[0].body == b'{"gpu_type":"t4","gpus":1,"hours":0.5,"create_disk":false}'
