"""What a server does, as seen from outside: events, metrics, traces, status."""
