"""Processes: the server's own, an embedded one and Ray's head; their environment, logs and end."""
