"""The gateway: what it adds to a request. `./run bench gateway`."""
