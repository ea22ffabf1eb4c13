"""A whole service under a hostile, seeded world: one number decides everything that happens.

`world` runs real operations and loops over a real database; `doubles` misbehave on purpose;
`invariants` looks after every step; `replay` finds a short way to a failure.
"""
