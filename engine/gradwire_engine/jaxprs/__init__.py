"""Analyses and rewrites of jaxprs: cost, seeds, repetition, segments."""
