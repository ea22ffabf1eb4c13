"""Answers in the place of servers whose pods only seem to run, in a process of its own.

Run as a program with the address; it prints its port.
"""

from __future__ import annotations

import asyncio
import sys

import jupyterhub
from tornado.web import Application, RequestHandler


class Anything(RequestHandler):
    def get(self) -> None:
        self.set_header("X-JupyterHub-Version", jupyterhub.__version__)
        self.finish({"version": "2"})


async def main(address: str) -> None:
    server = Application([(".*", Anything)], log_function=lambda _: None).listen(0, address)
    [listening] = list(server._sockets.values())
    print(listening.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
