"""The embedded engine: QEMU machines whose disks are mirrored over NBD into another zone."""
