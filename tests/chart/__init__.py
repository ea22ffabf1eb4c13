"""The chart as Helm renders it: what is made, who may do what, who reaches whom, what is refused.

Belongs here: tests over manifests, and what they need to render and to read them.
Never here: tests that install anything; those stand in `tests/cluster`.
"""
