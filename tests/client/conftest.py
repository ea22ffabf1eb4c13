"""The SDK is tested against the same whole service as the command."""

from tests.cli.conftest import database_url, service

__all__ = ["database_url", "service"]
