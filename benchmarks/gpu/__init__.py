"""A GPU: parity, throughput, and recovery, on one machine."""
