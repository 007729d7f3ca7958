"""The API tier: etcd, the API server, the controllers and the scheduler. It does not require root."""

import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vesta_cluster.errors import ClusterError
from vesta_cluster.processes import Processes

READY_SECONDS = 120.0
_POLL_SECONDS = 0.1
SERVICE_RANGE = "10.96.0.0/16"
PROCESSES = ("etcd", "apiserver", "controller-manager", "scheduler")


@dataclass(frozen=True)
class ControlPlane:
    """The four processes of the API tier.

    Attributes:
        programs: the folder of the binaries.
        pki: the folder of the certificates and kubeconfigs.
        state: the folder of the data of etcd.
        ip: the address of the API server; a loopback address needs no network namespace.
        port: the port of the API server.
        prefix: the prefix of all commands, such as `nsenter --net=…`.
    """

    programs: Path
    pki: Path
    state: Path
    processes: Processes
    ip: str = "127.0.0.1"
    port: int = 6443
    prefix: Sequence[str] = ()

    def start(self) -> None:
        """Starts stopped processes, and waits until the API server responds and the controllers have created the
        default service account.
        """
        client, peer = free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        if self.processes.find("apiserver") is None:
            self.processes.stop("etcd")
            self._start("etcd", self._etcd(etcd, f"http://127.0.0.1:{peer}"))
            self._start("apiserver", self._apiserver(etcd))
        self._wait(["get", "--raw", "/readyz"], "apiserver")
        for name, command in (("controller-manager", self._controllers()), ("scheduler", self._scheduler())):
            if self.processes.find(name) is None:
                self._start(name, command)
        self._wait(["get", "serviceaccount", "default", "--namespace=default"], "controller-manager")

    def _start(self, name: str, command: Sequence[str]) -> None:
        self.processes.start(name, [*self.prefix, *command])

    def _wait(self, arguments: Sequence[str], needed: str) -> None:
        command = [str(self.programs / "kubectl"), f"--kubeconfig={self.pki}/admin.kubeconfig", *arguments]
        end = time.monotonic() + READY_SECONDS
        while subprocess.run(command, capture_output=True, check=False).returncode:
            for name in ("etcd", "apiserver", needed):
                self.processes.check(name)
            if time.monotonic() > end:
                raise ClusterError(
                    f"{needed} is not ready after {READY_SECONDS:.0f} s; see {self.processes.log(needed)}"
                )
            time.sleep(_POLL_SECONDS)

    def _etcd(self, client: str, peer: str) -> list[str]:
        return [
            str(self.programs / "etcd"),
            "--name=one",
            f"--data-dir={self.state}/etcd",
            "--unsafe-no-fsync",  # the data of a test cluster may be lost with the machine
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=one={peer}",
        ]

    def _apiserver(self, etcd: str) -> list[str]:
        loopback = (
            ["--endpoint-reconciler-type=none"] if self.ip.startswith("127.") else []
        )  # the API server rejects a loopback address
        return [
            str(self.programs / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={self.ip}",
            f"--advertise-address={self.ip}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.pki}/apiserver.crt",
            f"--tls-private-key-file={self.pki}/apiserver.key",
            f"--client-ca-file={self.pki}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self.pki}/accounts.pub",
            f"--service-account-signing-key-file={self.pki}/accounts.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--kubelet-client-certificate={self.pki}/kubelet-client.crt",
            f"--kubelet-client-key={self.pki}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={self.pki}/front.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={self.pki}/front-client.crt",
            f"--proxy-client-key-file={self.pki}/front-client.key",
            "--enable-aggregator-routing=true",
            f"--cert-dir={self.state}/apiserver",
            *loopback,
        ]

    def _controllers(self) -> list[str]:
        kubeconfig = f"{self.pki}/controller-manager.kubeconfig"
        # Without a kubelet, nodes are simulated, and a lost node must be detected before a test ends.
        patience = ["--node-monitor-period=1s", "--node-monitor-grace-period=10s"] if self.ip.startswith("127.") else []
        return [
            str(self.programs / "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            "--secure-port=0",
            f"--service-account-private-key-file={self.pki}/accounts.key",
            f"--root-ca-file={self.pki}/ca.crt",
            f"--cluster-signing-cert-file={self.pki}/ca.crt",
            f"--cluster-signing-key-file={self.pki}/ca.key",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
            *patience,
        ]

    def _scheduler(self) -> list[str]:
        kubeconfig = f"{self.pki}/scheduler.kubeconfig"
        return [
            str(self.programs / "kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
        ]


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
