"""The synchronous face. `scripts/generate_sync.py` writes what mirrors `gradwire._face`."""
