"""What serving reaches: every contender on the same cores under the same load."""
