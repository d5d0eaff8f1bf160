"""What batches are written to: one module for each kind of store."""
