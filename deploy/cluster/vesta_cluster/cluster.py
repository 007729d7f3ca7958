"""A cluster on this machine: its folder, its lock, its start and its stop."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vesta_cluster import binaries, certificates, control_plane, network, node
from vesta_cluster.control_plane import ControlPlane, free_port
from vesta_cluster.errors import ClusterError, Unavailable
from vesta_cluster.node import Node
from vesta_cluster.processes import Processes

MANIFESTS = Path(__file__).parent / "manifests"
READY_SECONDS = 120.0
VOLUMES = 12
_VOLUME = """apiVersion: v1
kind: PersistentVolume
metadata: {{name: local-{number}}}
spec:
  capacity: {{storage: 100Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]
"""


@dataclass(frozen=True)
class Cluster:
    """One cluster. Only one cluster with a node can run on a machine, but any number of control planes without one.

    Attributes:
        home: its folder, an absolute path; short enough for the path of a socket below it.
        has_node: whether it runs pods, which requires root.
    """

    home: Path
    has_node: bool = True

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self.home / "pki" / "admin.kubeconfig"

    @property
    def processes(self) -> Processes:
        """All started processes."""
        return Processes(self.home / "processes")

    def up(self, report: Callable[[str], None]) -> None:
        """Starts all stopped processes, and waits until they are ready.

        Raises:
            Unavailable: the machine has no Go, no root permissions, or lacks a package.
            ClusterError: a process does not start.
        """
        if self.has_node:
            self._check_machine()
        names = [*binaries.API, *binaries.CLIENTS, *(binaries.NODE if self.has_node else ())]
        programs = binaries.ensure(names, report)
        with self._locked():
            start = time.monotonic()
            ip, port, prefix = "127.0.0.1", self._port(), []
            if self.has_node:
                network.create(control_plane.SERVICE_RANGE)
                ip, port, prefix = network.NODE_IP, 6443, network.inside()
            if not self.kubeconfig.exists():
                certificates.write_all(self.home / "pki", ip, node.NAME, f"https://{ip}:{port}")
            ControlPlane(programs, self.home / "pki", self.home / "api", self.processes, ip, port, prefix).start()
            report(f"the API server is ready after {time.monotonic() - start:.1f} s")
            if self.has_node:
                self._node.start()
                self.kubectl("apply", "--server-side", "--filename", str(MANIFESTS / "cluster.yaml"))
                self.recycle_volumes()
                self.kubectl("wait", "node", node.NAME, "--for=create", f"--timeout={READY_SECONDS:.0f}s")
                self._node.enforce_policies()
                self.kubectl("wait", "node", node.NAME, "--for=condition=Ready", f"--timeout={READY_SECONDS:.0f}s")
                self.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=120s")
                self._node.check()
                report(f"the node is ready after {time.monotonic() - start:.1f} s")

    def down(self) -> None:
        """Stops all processes and removes the folder of the cluster. No process, mount, namespace or cgroup is left."""
        if not self.home.exists():
            return
        with self._locked():
            if (self.home / "node").exists():
                self._node.stop()
            for name in (*reversed(control_plane.PROCESSES), *self.processes.names()):
                self.processes.stop(name)
            if (self.home / "node").exists():
                network.remove()
            shutil.rmtree(self.home)

    def load(self, archives: Sequence[Path]) -> list[str]:
        """Imports image archives into the node."""
        self._check_up()
        return self._node.load(archives)

    def restart(self, *names: str) -> None:
        """Kills processes and starts them again, while the pods keep running."""
        self._check_up()
        for name in names:
            self.processes.stop(name, signal.SIGKILL)
        self._node.start()

    def empty_registry(self) -> None:
        """Removes all images from the registry."""
        self._check_up()
        self.processes.stop("registry")
        shutil.rmtree(self.home / "node" / "registry", ignore_errors=True)
        self._node.start()

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Runs kubectl as the administrator.

        Raises:
            ClusterError: kubectl failed; the message is its output.
        """
        command = [str(binaries.folder() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        completed = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if completed.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {completed.stderr.strip()}")
        return completed.stdout

    def recycle_volumes(self) -> None:
        """Recreates the volumes that are not bound to a claim."""
        bound = self.kubectl(
            "get", "persistentvolumes", "--output", 'jsonpath={.items[?(@.status.phase=="Bound")].metadata.name}'
        ).split()
        free = [number for number in range(VOLUMES) if f"local-{number}" not in bound]
        names = [f"local-{number}" for number in free]
        self.kubectl("delete", "persistentvolumes", *names, "--ignore-not-found")
        manifests = []
        for number in free:
            path = self.home / "volumes" / str(number)
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            manifests.append(_VOLUME.format(number=number, path=path, node=node.NAME))
        self.kubectl("apply", "--server-side", "--filename", "-", stdin="---\n".join(manifests))

    @property
    def _node(self) -> Node:
        return Node(binaries.folder(), self.home / "pki", self.home / "node", self.processes)

    def _check_up(self) -> None:
        if self.processes.find("apiserver") is None:
            raise ClusterError("the cluster is not running; start it with: python -m vesta_cluster up")

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable(
                "a node requires root, for containers and a network namespace: run as root, or set KUBECONFIG"
            )
        if missing := node.missing_packages():
            raise Unavailable(
                f"a node requires {', '.join(missing)}: apt-get install --no-install-recommends {' '.join(missing)}"
            )
        if network.path().exists() and not (self.home / "node").exists():
            raise ClusterError(
                f"another cluster on this machine uses the network namespace {network.NAMESPACE}: stop it first"
            )

    def _port(self) -> int:
        """Returns the loopback port of the API server: that of the kubeconfig, or a free one."""
        if self.kubeconfig.exists():
            server = self.kubectl("config", "view", "--output", "jsonpath={.clusters[0].cluster.server}")
            return int(server.rpartition(":")[2])
        return free_port()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """A lock that allows one command at a time to change the cluster."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.home.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.home.mkdir(exist_ok=True, mode=0o700)
            yield
