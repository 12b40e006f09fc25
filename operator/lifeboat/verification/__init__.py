"""Proving that a recovered server works: the script after the switch, and the declared checks."""
