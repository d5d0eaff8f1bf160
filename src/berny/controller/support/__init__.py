"""Support bundles: what all nodes report about a cluster, in one archive without secrets."""
