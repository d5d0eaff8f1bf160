"""Support: what all nodes tell of a cluster, in one archive without secrets."""
