"""Tests, in folders that mirror the packages, and what they share: tiers and fixtures.

Nothing here is imported by the product. A test needs no network beyond this machine.
"""
