"""What can go wrong with a test cluster."""


class ClusterError(RuntimeError):
    """The cluster or a part of it does not do what was asked; the message says what happened and what would work."""


class Unavailable(ClusterError):
    """This machine lacks what a cluster needs; the message names it and says how to get it."""
