"""What clients send: read, and held to bounds, before anything is made of it."""
