"""The operator's URL: what it becomes, what is refused, and that its password stays hidden."""

import traceback
from pathlib import Path

import pytest

from gpudev_service.store import address
from gpudev_service.store.engine import Store
from gpudev_service.store.errors import StoreMisconfigured, StoreUnavailable

SECRET = "s3cr3t"


def logged(error: BaseException) -> str:
    """What a log shows of an error, with everything that it is chained to."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("postgresql://ada@db/gpudev", "postgresql+psycopg"),
        ("postgres://ada@db/gpudev", "postgresql+psycopg"),
        ("postgresql+psycopg://ada@db/gpudev", "postgresql+psycopg"),
        ("sqlite:///gpudev.sqlite", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///gpudev.sqlite", "sqlite+aiosqlite"),
    ],
)
def test_the_driver_is_an_async_one(written: str, driver: str) -> None:
    parsed = address.parse(written)
    assert parsed.drivername == driver
    assert address.parse(parsed) == parsed


@pytest.mark.parametrize(
    "written",
    [
        "",
        "gpudev.sqlite",
        "mysql://ada@db/gpudev",
        "postgresql+asyncpg://ada@db/gpudev",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared&uri=true",
    ],
)
def test_what_cannot_work_is_refused(written: str) -> None:
    with pytest.raises(StoreMisconfigured):
        address.parse(written)


def test_the_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="directory"):
        address.parse(f"sqlite:///{tmp_path}/missing/gpudev.sqlite")


@pytest.mark.parametrize(
    "written",
    [
        f"postgresql://ada:{SECRET}@db/gpudev",
        f"postgresql://ada@db/gpudev?password={SECRET}",
        f"postgresql://ada@db/gpudev?sslpassword={SECRET}",
    ],
)
def test_a_password_is_not_shown(written: str) -> None:
    assert SECRET not in address.shown(address.parse(written))
    assert SECRET not in repr(Store(written))


@pytest.mark.parametrize(
    "written", [f"postgresql//ada:{SECRET}@db", f"mysql://ada:{SECRET}@db/gpudev"]
)
def test_a_refused_url_is_not_repeated(written: str) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        address.parse(written)
    assert SECRET not in logged(caught.value)


async def test_an_unreachable_server_is_named_without_its_password(
    caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    store = Store(f"postgresql://ada:{SECRET}@127.0.0.1:{unused_tcp_port}/gpudev")
    with pytest.raises(StoreUnavailable) as caught:
        await store.ping()
    assert caught.value.__cause__ is not None
    assert SECRET not in logged(caught.value) + caplog.text
    assert str(unused_tcp_port) not in str(caught.value)
    await store.close()
