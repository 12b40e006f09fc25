"""The line: the one way from a source's QEMU to its replica, which breaks once, for all disks, and for good.

A program of its own, of the standard library alone, so that it is small and goes on when the operator does not. QEMU's
NBD clients connect to its socket, one for each disk; it connects each of them on to the replica and passes everything
on. What it adds is one decision for all of them: when one connection ends, when a write fails, or when nothing comes
back, every connection is closed at that instant. Left to itself each connection would wait until TCP gives up, the
guest's writes with it, and would come back by itself, so that newer writes reach the replica without older ones.

So the replica holds a state that the disks really had: a write is passed on only while every earlier one that the guest
was told is done has been answered by the replica. A request whose payload was cut off is not carried out there.

Three things keep the guest from waiting:

* What is under way is watched. Nothing back from the replica for 0.7 s is a break; a slow connection that moves is not
  one. What moves: answers, and bytes of the oldest request that the other side's TCP has taken.
* A small read of the line's own tells a slow disk from a dead connection, and finds the latter while the guest is idle.
* A timer in the kernel kills the line when it does not come round, even when it was stopped.

NBD: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""
