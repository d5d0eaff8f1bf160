"""``start-dfs.sh`` and its like: a component's units on all nodes, driven from one, by a key that can do only that."""
