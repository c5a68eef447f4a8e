"""Faults under load: what is killed, frozen or cut, and what of the work survives."""
