"""What every test may use: the tiers, a database of each kind, a store on it."""

import os

from hypothesis import settings

# The tiers come first: imported by another plugin, their assertions could not be rewritten.
pytest_plugins = [
    "pytester",
    "tests.tiers",
    "tests.fixtures.browser",
    "tests.fixtures.cluster",
    "tests.fixtures.hub",
    "tests.fixtures.postgres",
    "tests.fixtures.store",
    "tests.fixtures.world",
]

# How long an example takes says something about the machine, not about the code. In CI the
# examples are the same in every run.
_profile = settings.get_profile("ci" if os.environ.get("CI") == "true" else "default")
settings.register_profile("gpudev", _profile, deadline=None)
settings.load_profile("gpudev")
