"""What a laptop needs to use gpudev: REST models, the client and SDK, the `gpu-dev` command.

Belongs here: the models of the REST API (the one place where they stand), the states and limits
that every surface shares, the sync and async client, the SDK, the command line.
Never here: anything that needs JupyterHub, a database or a GPU, or that imports another gpudev
package. Every other package imports this one.
"""
