"""Delivery: from a source's complete answer to every sink, with nothing lost and nothing doubled under a single fault."""
