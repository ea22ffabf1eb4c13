"""What the documentation says is so: links lead somewhere, commands parse, names exist."""
