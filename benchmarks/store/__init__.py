"""The event store: waiting times of writes, and of looks. `./run bench store`."""
