"""The `ceph` engine: RBD images that two Ceph clusters mirror to each other, and machines that run on them."""
