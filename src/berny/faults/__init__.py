"""The fault bench: injects faults into a lab, and compares every sink with what the source served."""
