"""Side by side with peers, every figure a ratio from one run."""
