"""Records what a function of tensors does, operator by operator, while it runs."""
