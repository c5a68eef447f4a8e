"""Graphs: parsed, checked, fingerprinted, with their signatures and limits."""
