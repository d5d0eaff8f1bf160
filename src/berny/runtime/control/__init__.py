"""``start-NAME.sh`` and ``stop-NAME.sh`` control a component's units on all nodes from one, with an SSH key that permits only
this."""
