"""kopf handlers: unpack, call, return."""
