"""Creates kafka-python's classes of responses before any client runs, for it does not survive that two threads create one at once.

kafka-python creates the class of a version of a response when the first such response arrives, and registers a weak reference to it. Where
two clients in one process do so at the same time, the reference can be to the class that is dropped: every later response of that kind then
fails in every client of the process with `ReferenceError: weakly-referenced object no longer exists`, until the process restarts.
"""

from kafka.protocol.api_header import ResponseClassRegistry


def create_response_classes() -> None:
    """Creates the classes of all versions of all responses, which takes some 5 ms. No client may run yet."""
    for registered in list(ResponseClassRegistry._response_class_registry.values()):
        unversioned = registered[None]
        for version in range(unversioned.min_version, unversioned.max_version + 1):
            unversioned[version]
