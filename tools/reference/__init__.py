"""The parts of the documentation that are made from the code.

    python -m tools.reference           writes them
    python -m tools.reference --check   says which are not as the code has it, and ends with 1

Belongs here: one module per page or group of sections, each a pure function from the code's own
tables (routes, verbs, traits, roles) to Markdown.
Never here: prose that somebody has to think about; it stands in the pages themselves.
"""
