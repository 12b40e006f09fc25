"""The four kinds as pydantic models: the only place where a field of the API is defined."""
