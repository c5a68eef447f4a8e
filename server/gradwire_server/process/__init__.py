"""Processes: the server's own, an embedded one, Ray's head, their environment and logs."""
