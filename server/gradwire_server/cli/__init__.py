"""The command line: the Python SDK as commands, and the command that runs a server."""
