"""Finding the settings of a server by live load: ``./run tune``."""
