"""The client's end of SSH through the Hub: what `ssh` runs as its ProxyCommand.

Belongs here: the WebSocket's frames (shared with the server's end), the few lines of HTTP that open
one, the relay, the words on standard error. It runs as `python -I -S DIRECTORY`, so that a login
starts in milliseconds: standard library only, and of that only what is quick to import.
Never here: click, httpx, pydantic; a token or a name in an argument of a shell.
"""
