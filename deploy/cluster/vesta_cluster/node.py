"""The node tier: containerd with runc, kubelet and kube-proxy in a separate network namespace, with NetworkPolicy and metrics."""

import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from vesta_cluster import images, network, node_files
from vesta_cluster.control_plane import SERVICE_RANGE
from vesta_cluster.errors import ClusterError, Unavailable
from vesta_cluster.node_files import PAUSE_IMAGE, PLUGINS, POD_RANGE
from vesta_cluster.processes import Processes

NAME = "node1"
OWN_IMAGES = {PAUSE_IMAGE: "pause", "vesta.test/coredns:1": "coredns", "vesta.test/agnhost:1": "agnhost"}
"""Images with one program each: tag and program. agnhost is the image of Kubernetes' own tests."""
PROCESSES = ("containerd", "kubelet", "kube-proxy", "kube-router", "metrics-server", "registry")
CGROUPS = Path("/sys/fs/cgroup")
_PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    str(PLUGINS / "bridge"): "containernetworking-plugins",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 60.0
_POLL_SECONDS = 0.1


def missing_packages(path: str = _PATH) -> list[str]:
    """Returns the required Debian packages whose programs are not installed."""
    return sorted(package for program, package in _PACKAGES.items() if shutil.which(program, path=path) is None)


@dataclass(frozen=True)
class Node:
    """The processes of the node.

    Attributes:
        programs: the folder of the binaries.
        pki: the folder of the certificates and kubeconfigs.
        state: the folder of images, pods and configuration.
    """

    programs: Path
    pki: Path
    state: Path
    processes: Processes

    def start(self) -> None:
        """Starts stopped processes, and imports the images of the node.

        Raises:
            Unavailable: a package is missing.
            ClusterError: a process exited.
        """
        if missing := missing_packages():
            raise Unavailable(
                f"a node requires {', '.join(missing)}: apt-get install --no-install-recommends {' '.join(missing)}"
            )
        self.state.mkdir(parents=True, exist_ok=True)
        node_files.write_all(self.state, self.pki)
        if self.processes.find("containerd") is None:
            self._start("containerd", ["containerd", "--config", f"{self.state}/containerd.toml"])
            self._wait_for_containerd()
            if not (self.state / "images").exists():
                self._import_own_images()
        kubeconfig = f"--kubeconfig={self.pki}/admin.kubeconfig"
        for name, command in {
            "kubelet": self._kubelet(),
            "kube-proxy": self._proxy(),
            "metrics-server": self._metrics(kubeconfig),
            "registry": ["registry", "serve", f"{self.state}/registry.yaml"],
        }.items():
            if self.processes.find(name) is None:
                self._start(name, command)

    def enforce_policies(self) -> None:
        """Starts the enforcement of NetworkPolicy when the API server has the node, because it looks the node up once
        and exits without it.
        """
        if self.processes.find("kube-router") is None:
            self._start("kube-router", self._policies(f"--kubeconfig={self.pki}/admin.kubeconfig"))

    def check(self) -> None:
        """Raises ClusterError if a process has exited."""
        for name in PROCESSES:
            self.processes.check(name)

    def load(self, archives: Sequence[Path]) -> list[str]:
        """Imports images: archives in the format of `docker save` or buildah, or folders of an OCI image layout.

        Returns:
            The output of containerd for each.
        """
        return [line for path in archives for line in self._import(path.resolve()).splitlines()]

    def _import(self, path: Path) -> str:
        if not path.is_dir():
            return self._ctr("images", "import", str(path))
        with tempfile.NamedTemporaryFile(dir=self.state, suffix=".tar") as packed:
            with tarfile.open(packed.name, "w") as archive:
                archive.add(path, arcname="")
            return self._ctr("images", "import", packed.name)

    def stop(self) -> None:
        """Kills the pods and stops the processes; their mounts and cgroups are removed too."""
        for name in reversed(PROCESSES[1:]):
            self.processes.stop(name)
        if self.processes.find("containerd"):
            for task in self._ctr("task", "list", "--quiet").split():
                self._try_ctr("task", "kill", "--all", "--signal", "KILL", task)
            for task in self._ctr("task", "list", "--quiet").split():
                self._try_ctr("task", "delete", "--force", task)
        self.processes.stop("containerd")
        self._stop_shims()
        self._unmount()
        _remove_cgroups()

    def _start(self, name: str, command: Sequence[str]) -> None:
        program, *arguments = command
        started = [*network.inside(), str(self.programs / program), *arguments]
        self.processes.start(name, started, path=f"{self.programs}:{_PATH}")

    def _ctr_command(self, *arguments: str) -> list[str]:
        return [
            str(self.programs / "ctr"),
            "--address",
            f"{self.state}/containerd.sock",
            "--namespace",
            "k8s.io",
            *arguments,
        ]

    def _ctr(self, *arguments: str) -> str:
        done = subprocess.run(self._ctr_command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"ctr {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def _try_ctr(self, *arguments: str) -> bool:
        return subprocess.run(self._ctr_command(*arguments), capture_output=True, check=False).returncode == 0

    def _wait_for_containerd(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._try_ctr("version"):
            self.processes.check("containerd")
            if time.monotonic() > end:
                raise ClusterError(f"containerd does not respond; see {self.processes.log('containerd')}")
            time.sleep(_POLL_SECONDS)

    def _import_own_images(self) -> None:
        folder = self.state / "images"
        folder.mkdir(exist_ok=True)
        for tag, program in OWN_IMAGES.items():
            archive = folder / f"{program}.tar"
            images.write_archive(archive, tag, {program: self.programs / program}, [f"/{program}"])
            self.load([archive])

    def _kubelet(self) -> list[str]:
        return [
            "kubelet",
            f"--config={self.state}/kubelet.yaml",
            f"--kubeconfig={self.pki}/kubelet.kubeconfig",
            f"--hostname-override={NAME}",
            f"--node-ip={network.NODE_IP}",
            f"--root-dir={self.state}/kubelet",
            f"--cert-dir={self.state}/kubelet-pki",
        ]

    def _proxy(self) -> list[str]:
        zeros = ("max-per-core", "min", "tcp-timeout-established", "tcp-timeout-close-wait")
        return [
            "kube-proxy",
            f"--kubeconfig={self.pki}/proxy.kubeconfig",
            f"--hostname-override={NAME}",
            f"--bind-address={network.NODE_IP}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_RANGE}",
            "--oom-score-adj=0",
            *(f"--conntrack-{name}=0" for name in zeros),  # the limits of the machine must not be changed
            "--nodeport-addresses=10.77.0.0/30",
        ]

    def _policies(self, kubeconfig: str) -> list[str]:
        return [
            "kube-router",
            kubeconfig,
            f"--hostname-override={NAME}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            "--enable-cni=false",
            "--enable-ipv4=true",
            "--enable-ipv6=false",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--health-port=0",
            "--metrics-port=0",
            "--iptables-sync-period=1m",
        ]

    def _metrics(self, kubeconfig: str) -> list[str]:
        path = kubeconfig.partition("=")[2]
        return [
            "metrics-server",
            kubeconfig,
            f"--authentication-kubeconfig={path}",
            f"--authorization-kubeconfig={path}",
            f"--bind-address={network.NODE_IP}",
            "--secure-port=4443",
            f"--cert-dir={self.state}/metrics-server",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self.pki}/ca.crt",
            f"--kubelet-client-certificate={self.pki}/kubelet-client.crt",
            f"--kubelet-client-key={self.pki}/kubelet-client.key",
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        ]

    def _stop_shims(self) -> None:
        """Kills the shims, which outlive containerd by design; ours are recognised by its socket."""
        for process in psutil.process_iter(["name", "cmdline"]):
            if f"{self.state}/containerd.sock" in (process.info["cmdline"] or []):
                process.send_signal(signal.SIGKILL)

    def _unmount(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{self.state}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _remove_cgroups() -> None:
    """Removes the empty cgroups of the pods, in each hierarchy for cgroups version 1."""
    for root in (*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")):
        folders = [path for path in root.rglob("*") if path.is_dir()]
        for folder in (*sorted(folders, reverse=True), root):
            _try_rmdir(folder)


def _try_rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # a process of another cluster is in it
        return
