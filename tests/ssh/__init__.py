"""SSH through the proxy, with the real OpenSSH client and server."""
