"""Errors of a test cluster."""


class ClusterError(RuntimeError):
    """The cluster or a process of it failed; the message says what happened and suggests a fix."""


class Unavailable(ClusterError):
    """This machine does not meet the requirements of a cluster; the message describes how to meet them."""
