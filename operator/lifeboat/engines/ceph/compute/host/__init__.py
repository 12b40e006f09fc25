"""Servers as QEMU machines on the operator's host, in zones that are folders, on disks that librbd serves."""
