"""Work for Ray: the scheduler, the workers and what they keep."""
