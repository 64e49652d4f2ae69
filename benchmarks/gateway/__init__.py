"""What the gateway adds to a request, and how many it takes on one core."""
