"""Two real Ceph clusters on one machine that mirror to each other: what the `ceph` engine is tested and shown on.

Each has one monitor, one manager, one OSD that keeps its data in a file, and an rbd-mirror daemon. They know their
clients by keys, as real ones do. There is no copy of anything within a cluster: a lost OSD is a lost cluster.
"""

from demo.ceph.cluster import CephError, Cluster
from demo.ceph.pair import Clusters

__all__ = ["CephError", "Cluster", "Clusters"]
