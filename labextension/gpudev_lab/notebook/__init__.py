"""What code that runs on a lease can know of it: `import gpudev_lab` in a notebook or a job.

Belongs here: the lease as data, word before it ends, and the widget.
Never here: anything that the Jupyter server runs; a change of the lease without its owner's browser
(a kernel has the server's token, which may only look).
"""
