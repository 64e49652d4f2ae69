"""Search for the rows of a matrix with the largest inner products with a query, under a filter."""
