"""Calls to a server: the channel, retries, streams, and where received data go."""
