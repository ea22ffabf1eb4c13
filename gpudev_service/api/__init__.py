"""The REST API: one route table, one handler, one module of small functions per resource.

Belongs here: who may call what (`permissions`, `auth`), what a request must look like
(`validation`), retries (`idempotency`), streams, the OpenAPI document, metrics and request logs.
Never here: a decision about reservations, disks or capacity, or SQL on their tables (`operations`
has them), and HTML (`pages`).
"""
