"""The asynchronous face: clients, functions and accumulators as coroutines."""
