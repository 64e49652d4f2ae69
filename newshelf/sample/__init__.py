"""The sample catalogue, drawn by code: nothing is downloaded and nothing is copied."""
