"""From a checkpoint to graphs, index and archives."""
