"""Statistics of rollouts, verified on simulated rollouts. `./run bench rollout`."""
