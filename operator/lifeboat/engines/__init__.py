"""Engines copy disks and start servers; each lives in a package of its own behind one contract."""
