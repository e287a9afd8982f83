"""The Robult network, its losses and its files. Needs torch."""
