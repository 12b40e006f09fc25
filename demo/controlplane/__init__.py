"""A real Kubernetes API on one machine: etcd and kube-apiserver, built once from their Go modules, without containers.

The demo and the API tests talk to the same server programs as a cluster does, so that CRD schemas, CEL rules, RBAC,
server-side apply and watches are the real ones. There is no controller manager: nobody collects garbage or empties a
deleted namespace.
"""

from demo.controlplane.build import binaries
from demo.controlplane.plane import ControlPlane, ControlPlaneError

__all__ = ["ControlPlane", "ControlPlaneError", "binaries"]
