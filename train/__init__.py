"""Training: ``python -m train``."""
