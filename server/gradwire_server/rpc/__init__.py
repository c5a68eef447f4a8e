"""The calls of the service: one module a call, translation of messages, statuses."""
