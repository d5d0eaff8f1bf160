"""``start-NAME.sh`` and ``stop-NAME.sh``: a component's units on all nodes, driven from one by a key for that alone."""
