"""Sparse derivatives: patterns found on linearized programs, colorings, decompression."""
