"""What can be done: one function per thing a person or a loop may ask for.

Belongs here: admission, planning into the database, extension, cancellation, reports about servers,
disks, capacity; each decides and writes in one transaction, and publishes after the commit.
Never here: HTTP, permissions (the API has checked them), timers.
"""
