"""How long a request waits for its rows to be durable: ``./run bench store``."""
