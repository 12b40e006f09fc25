"""Decide and report: what a server needs next, from its objects, the ledger, what is observed and the clock."""
