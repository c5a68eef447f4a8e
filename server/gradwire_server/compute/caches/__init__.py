"""What is kept: graphs and arrays of clients, kernels and plans, in memory and on disk."""
