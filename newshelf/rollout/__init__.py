"""Rollouts: plans, assignment, statistics, decisions and the controller."""
