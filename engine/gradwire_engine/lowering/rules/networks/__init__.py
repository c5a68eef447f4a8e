"""Rules of the layers of neural networks, of their losses and of their training steps."""
