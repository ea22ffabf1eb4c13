"""What gpudev adds to the Hub's API, for those who serve it and those who ask."""

#: Below `/hub/api/`, followed by a user and a server. DELETE removes the server's row if the server
#: is at rest, or as soon as it has stopped: 404 where there is none, 409 where it runs or starts.
ROWS = "gpudev/servers"
