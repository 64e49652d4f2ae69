"""Learning from a few examples: episodes, MAML, prototypes and a linear probe.

A *task* is a small problem of its own: five product types with one picture each, or a new
category with twenty events. Meta-learning sees many such tasks and learns what makes the
next one quick to learn: a start for gradient descent (``maml``), or a space in which means
of a few examples already tell types apart (``learners``, ``episodes``).
"""
