"""Pages, plots and tables for evaluation, load tests, tuning, rollouts and benchmarks."""
