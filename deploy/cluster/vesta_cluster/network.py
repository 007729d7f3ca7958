"""The network of a node: a separate namespace, connected to this machine by one pair of addresses, without access to other networks."""

import subprocess
from pathlib import Path

HOST_IP = "10.77.0.1"
NODE_IP = "10.77.0.2"
NAMESPACE = "vesta-node"
_HOST_LINK, _NODE_LINK = "vesta-host", "vesta-node"


def path() -> Path:
    """The path of the namespace."""
    return Path("/run/netns") / NAMESPACE


def inside() -> list[str]:
    """The prefix of commands that run in the namespace. Not `ip netns exec`, which remounts /sys and hides the
    cgroups.
    """
    return ["nsenter", f"--net={path()}"]


def create(service_range: str) -> None:
    """Creates the namespace and its addresses, unless they exist."""
    if path().exists():
        return
    _run("ip", "netns", "add", NAMESPACE)
    _run("ip", "link", "add", _HOST_LINK, "type", "veth", "peer", "name", _NODE_LINK, "netns", NAMESPACE)
    _run("ip", "address", "add", f"{HOST_IP}/30", "dev", _HOST_LINK)
    _run("ip", "link", "set", _HOST_LINK, "up")
    _run(*inside(), "ip", "link", "set", "lo", "up")
    _run(*inside(), "ip", "address", "add", f"{NODE_IP}/30", "dev", _NODE_LINK)
    _run(*inside(), "ip", "link", "set", _NODE_LINK, "up")
    # so that processes of the node can reach the addresses of Services, which kube-proxy replaces before the packets leave
    _run(*inside(), "ip", "route", "add", service_range, "dev", _NODE_LINK)
    _run(*inside(), "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")


def remove() -> None:
    """Removes the namespace with everything in it, if it exists."""
    if path().exists():
        _run("ip", "netns", "delete", NAMESPACE)
    subprocess.run(["ip", "link", "delete", _HOST_LINK], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
