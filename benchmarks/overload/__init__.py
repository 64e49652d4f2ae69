"""`./run bench overload`: more load than a running server can answer."""
