"""Tasks whose popular products differ: an augmentation against memorised categories.

A start that has learned the categories of meta-training knows what is popular in each of them
before its first inner step. The support then tells it nothing, the learned rates shrink, and
in a category that it does not know it adapts too little (Yin et al., 2020, "Meta-Learning
without Memorization"). What helps is to make the answer depend on more than the category
(Rajendran et al., 2020, "Meta-Learning Requires Meta-Augmentation"). Here each task draws
weights of the category's products, and its support and queries favour the same ones::

    w_p = exp(tilt · n_p),  n_p ~ N(0, 1)        P(event) ∝ w_(its product)

Events are drawn without replacement (Efraimidis and Spirakis, 2006, in the form of Gumbel):
descending ``log w + g``, ``g ~ Gumbel(0, 1)``. Which products fit which histories stays as it
was; only how often each of them is taken is a matter of the task.
"""

import numpy as np

from newshelf.evaluation.types import IntArray

__all__ = ["tilted_order"]


def tilted_order(
    target: IntArray, products: int, tilt: float, rng: np.random.Generator
) -> IntArray:
    """All events in the order in which a task with weights of its own draws them.

    Args:
        target: ``(E,)`` which product each event took.
        products: how many there are.
        tilt: standard deviation of the logarithm of a product's weight; 0 draws all events
            alike.
        rng: of the task's weights and of the draw.

    Returns:
        ``(E,)`` numbers of the events, the first drawn first.
    """
    log_weight = tilt * rng.standard_normal(products)
    order: IntArray = np.argsort(-(log_weight[target] + rng.gumbel(size=len(target))))
    return order
