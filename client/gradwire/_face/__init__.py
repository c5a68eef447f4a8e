"""The asynchronous face: clients, functions and accumulators. `gradwire._sync` is generated from it."""
