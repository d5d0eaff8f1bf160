"""Sinks of batch consumers: one module for each kind of store."""
