"""The synchronous face, generated from `gradwire._face`, and what is its own."""
