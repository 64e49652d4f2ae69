"""Live load on a server: what is sent, and what was measured."""
