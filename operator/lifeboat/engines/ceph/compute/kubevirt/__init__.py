"""Servers as KubeVirt's virtual machines, on RBD images that ceph-csi maps, in whatever cluster a site's options name.

KubeVirt's objects are all that is written down: what a machine is, what it should do and which disks it has is read
from there each time. What is in `manifests` and `reading` is pure; only `cluster` speaks to an API server.
"""
