"""Running Python inside a person's server, over the websocket that JupyterLab uses."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import quote

import httpx

from gpudev_client.models import Reservation
from tests.fixtures.websocket import websocket

from .people import Person


def run_inside(person: Person, reservation: Reservation, code: str, patience: float = 60.0) -> str:
    """What `code` prints in a fresh kernel of the reservation's server."""
    return asyncio.run(asyncio.wait_for(_run(person, reservation, code), patience))


async def _run(person: Person, reservation: Reservation, code: str) -> str:
    server = f"{reservation.server_name}/" if reservation.server_name else ""
    base = f"{person.hub.url}/user/{quote(person.name)}/{server}api/kernels"
    login = {"Authorization": f"token {person.token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60.0, headers=login) as http:
        made = await http.post(base, json={})
        made.raise_for_status()
        kernel = made.json()["id"]
    address = f"{base.replace('http', 'ws', 1)}/{kernel}/channels"
    request = uuid.uuid4().hex
    async with websocket(address, login) as connection:
        await connection.write_message(json.dumps(_execute(request, code)))
        printed: list[str] = []
        # The reply and what was printed come by two ways of their own; "idle" ends the second.
        awaited = {"reply", "idle"}
        while awaited:
            text = await connection.read_message()
            assert text is not None, "the kernel's connection was closed"
            message = json.loads(text)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            elif kind == "error":
                raise AssertionError(f"{content['ename']}: {content['evalue']}")
            elif kind == "execute_reply":
                awaited.discard("reply")
            elif kind == "status":
                awaited.discard(content["execution_state"])
        return "".join(printed)


def _execute(request: str, code: str) -> dict[str, Any]:
    header = {
        "msg_id": request,
        "msg_type": "execute_request",
        "username": "",
        "session": uuid.uuid4().hex,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
