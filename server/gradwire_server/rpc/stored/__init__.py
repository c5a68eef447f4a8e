"""What clients send to be referred to later: graphs and arrays, kept and deleted."""
