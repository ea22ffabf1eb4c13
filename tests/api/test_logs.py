"""What the logs say, and what they never say."""

from __future__ import annotations

import json
import logging

import pytest

from gpudev_service.api.logs import JsonFormatter, TextFormatter, redact

SECRET = "s3cr3t-0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: token {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"{{'Authorization': 'token {SECRET}'}}",
        f"GET /services/gpudev/oauth_callback?code={SECRET}&state={SECRET}",
        f"/hub/spawn-pending/ada?_xsrf={SECRET}",
        f"Cookie: service-gpudev={SECRET}",
        f"bearer {SECRET}",
        f"a failed request with token {SECRET} was seen",
    ],
)
def test_credentials_are_not_written(text: str) -> None:
    assert SECRET not in redact(text)


def test_words_are_left_alone() -> None:
    assert redact("the Hub could not be asked about a token: HTTPError") == (
        "the Hub could not be asked about a token: HTTPError"
    )


def test_a_line_is_one_object() -> None:
    record = logging.makeLogRecord(
        {
            "name": "gpudev.access", "levelname": "INFO", "msg": "request\n%s",
            "args": ("x" * 5000,), "fields": {"request_id": "r1", "status": 200},
        }
    )  # fmt: skip
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert len(line) < 1200
    assert json.loads(line)["status"] == 200


def test_a_traceback_carries_no_credentials() -> None:
    error = ValueError(f"Authorization: token {SECRET}")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, None)})
    assert "ValueError" in JsonFormatter().format(record)
    assert SECRET not in JsonFormatter().format(record)
    assert SECRET not in TextFormatter().format(record)
