"""`./run bench supervision`: kills each process of a running server while shoppers call it."""
