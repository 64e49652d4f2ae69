"""Click models over fields: rows, negatives, losses, and the ranker they become."""
