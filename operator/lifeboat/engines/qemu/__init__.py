"""The embedded engine: QEMU machines whose disks are mirrored over NBD into another zone."""

from lifeboat.engines.qemu.engine import QemuEngine

__all__ = ["QemuEngine"]
