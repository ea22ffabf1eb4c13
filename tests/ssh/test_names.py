"""Names that arrive from outside: only those of a reservation get anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import limits
from gpudev_client.ssh import hosts
from gpudev_client.ssh.main import Options
from gpudev_client.ssh.problems import Problem
from gpudev_client.ssh.wire import Address


@given(st.from_regex(limits.RESERVATION_ID, fullmatch=True))
def test_every_id_that_there_may_be_is_a_host(reservation: str) -> None:
    assert hosts.reservation_of(f"gpudev-{reservation}") == reservation


@given(st.text())
def test_no_other_text_is(text: str) -> None:
    try:
        found = hosts.reservation_of(text)
    except Problem:
        return
    assert text == f"gpudev-{found}"
    assert limits.is_reservation_id(found.ljust(hosts.ID_LENGTH, "0"))


@pytest.mark.parametrize(
    "host",
    ["", "gpudev-", "gpudev-abc", "gpudev-$(touch x)", "gpudev-`id`", "gpudev-a;id00",
     "-oProxyCommand=x", "gpudev-abcd/../x", "gpudev-abcd\n", "gpudev-abcd0123456789ef0",
     "GPUDEV-abcd0123456789ef", "gpudev-\uff41\uff42\uff43\uff44", "gpudev-abcd'", "example.org"],
)  # fmt: skip
def test_hostile_hosts_are_refused_in_words(host: str) -> None:
    with pytest.raises(Problem, match="is no host of gpudev"):
        hosts.reservation_of(host)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--what", "a"], ["--config"], ["--fdpass"]])
def test_arguments_that_are_none(arguments: list[str]) -> None:
    with pytest.raises(Problem, match="usage"):
        Options(arguments)


@pytest.mark.parametrize(
    ("url", "tls", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000/user/a/gpudev/ssh", False, "127.0.0.1", 8000, "/user/a/gpudev/ssh"),
        ("https://hub.example.org/x", True, "hub.example.org", 443, "/x"),
        ("https://hub.example.org", True, "hub.example.org", 443, ""),
        ("http://[::1]:81/", False, "::1", 81, "/"),
    ],
)  # fmt: skip
def test_addresses(url: str, tls: bool, host: str, port: int, path: str) -> None:
    found = Address(url)
    assert (found.tls, found.host, found.port, found.path) == (tls, host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a/b",
        "http:///x",
        "http://a b/",
        "http://u@h/",
        "http://h:x/",
        "http://h/\r\nX: y",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(Problem):
        Address(url)


@pytest.mark.parametrize(
    "keys", [[], [""], ["ssh-ed25519 AAAA\n* ssh-rsa BBBB"], ["@cert-authority *"]]
)
def test_a_host_key_that_is_none_is_not_written(tmp_path: object, keys: list[str]) -> None:
    with pytest.raises(Problem):
        hosts.write_known(str(tmp_path), "gpudev-abcd", keys)
