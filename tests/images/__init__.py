"""The recipes of the images: what a linter says, who they run as, what they say is in them.

Built and run they are in `tests/cluster`.
"""
