"""What the rollout's statistics promise, measured on simulated rollouts."""
