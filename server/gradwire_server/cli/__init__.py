"""The command line: a face over the Python SDK, and the way to start a server."""
