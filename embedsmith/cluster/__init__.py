"""Many machines: shards are encoded and searched by the workers of a Ray cluster, byte for byte as by one process."""
