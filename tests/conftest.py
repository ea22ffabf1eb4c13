"""What every test may use: the tiers, a database of each kind, a store on it."""

# The tiers come first: imported by another plugin, their assertions could not be rewritten.
pytest_plugins = [
    "pytester",
    "tests.tiers",
    "tests.fixtures.browser",
    "tests.fixtures.hub",
    "tests.fixtures.postgres",
    "tests.fixtures.store",
]
