"""What training, export and runtime share: contracts at the borders, pure mathematics inside."""
