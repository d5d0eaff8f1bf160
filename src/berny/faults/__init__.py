"""The fault bench: something is broken on a lab on purpose, and every sink is held against what the source served."""
