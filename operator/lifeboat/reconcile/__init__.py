"""The road that every server goes: observe, decide, act, report; a loop for each site pair, passes for each server."""
