"""From a checkpoint to graphs, index and archives.

``run`` writes the graphs and proves them, ``index`` adds what can be recommended, and
``archive`` packs both for TorchServe.
"""
