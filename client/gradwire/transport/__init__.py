"""Calls to a server: channel, retries, uploads, streams, and the assembly of received data."""
