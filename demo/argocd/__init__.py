"""A real Argo CD on one machine, and what Lifeboat brings for it."""
