"""Colorings of sparsity patterns: which columns and rows share a seed, and where each entry is found then."""
