"""What every test may use: the tiers, a database of each kind, a store on it."""

pytest_plugins = ["pytester", "tests.fixtures.postgres", "tests.fixtures.store", "tests.tiers"]
