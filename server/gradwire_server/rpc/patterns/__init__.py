"""Sparsity patterns on the wire: what clients give, what they are sent, and what is checked."""
