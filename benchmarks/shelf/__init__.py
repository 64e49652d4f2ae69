"""`./run bench shelf`: an index of a million products, and changes that reach the workers."""
