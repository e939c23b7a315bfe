"""From one specification to the files of each provider; none of them holds a secret or opens a port to the world."""

from cluster.render.files import render

__all__ = ["render"]
