"""Side-by-side measurements that a reader can repeat."""
