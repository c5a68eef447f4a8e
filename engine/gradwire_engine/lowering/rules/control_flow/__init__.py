"""Rules of If, Loop and Scan, and the JAX forms that their bodies are evaluated in."""
