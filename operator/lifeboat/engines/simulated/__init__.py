"""An engine without machines, for tests of the lifecycle and for scale; never a default."""
