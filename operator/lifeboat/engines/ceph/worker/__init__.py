"""The program that talks to one Ceph cluster: it runs on the distribution's Python, with nothing else installed."""
