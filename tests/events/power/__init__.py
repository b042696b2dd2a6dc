"""Power cuts without a power switch: the disk as it may be, rebuilt from a record of writes and syncs."""
