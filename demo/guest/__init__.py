"""Servers to protect: disk images of small Debian machines that boot from nothing but their disks.

They are put together from Debian's packages without mounts, loop devices or privileges, and kept outside the checkout.
A recovered server must prove something, so each has an agent, an address by DHCP, data on disks of its own that tells
whether a write was lost or two disks are of different instants, and an orderly shutdown at the power button.
"""

from demo.guest.images import FLAVOURS, GuestImage, build, copy_disks, missing_programs
from demo.guest.parts import blank_disk

__all__ = ["FLAVOURS", "GuestImage", "blank_disk", "build", "copy_disks", "missing_programs"]
