"""The peers' servers: each file is run in the peers' own environment."""
