"""Berny: a streaming and batch data platform for four VMs."""
