"""The gRPC service: one module per call, translation of messages, statuses of errors."""
