"""The one-machine world: a control plane, two zones and an example server, for trying Lifeboat and for its tests."""
