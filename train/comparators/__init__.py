"""What Robult is compared with: the same encoders, batches, labels and search for every method."""
