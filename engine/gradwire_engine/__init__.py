"""Blocks of exact derivatives from serialized graphs: no gRPC, no Ray, no wire types."""
