"""QEMU machines on the operator's host: what every engine that starts such machines shares, and no engine by itself."""
