"""Servers without the Hub."""
