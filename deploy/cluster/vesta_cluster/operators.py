"""The CRDs of the operators that the chart supports, from the Go modules of these operators. Nothing is built."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from vesta_cluster.binaries import MODULE
from vesta_cluster.errors import ClusterError, Unavailable

PINNED = MODULE / "operators"
CRDS = {
    "github.com/cert-manager/cert-manager": "deploy/crds",
    "github.com/kedacore/keda/v2": "config/crd/bases",
    "github.com/prometheus-operator/prometheus-operator": "example/prometheus-operator-crd",
    "sigs.k8s.io/gateway-api": "config/crd/standard",
    "sigs.k8s.io/kueue": "config/components/crd/bases",
}
"""The folder of the CRDs in each module that `operators/go.mod` pins."""


def crds() -> dict[str, Path]:
    """Returns the files of all CRDs by name, from Go's module cache; modules that are not in it are downloaded (20 MB).

    Raises:
        Unavailable: Go is not installed.
        ClusterError: a module cannot be downloaded, or differs from `operators/go.sum`.
    """
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is required to download the CRDs of operators: install Go 1.26")
    command = [go, "mod", "download", "-json", *CRDS]
    environment = {**os.environ, "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=PINNED, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"the CRDs of operators cannot be downloaded: {(done.stderr + done.stdout).strip()}")
    modules = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")
    folders = [Path(module["Dir"]) / CRDS[module["Path"]] for module in modules]
    files = sorted(path for folder in folders for path in folder.glob("*_*.yaml"))  # GROUP_PLURAL.yaml
    return {
        ".".join(reversed(path.stem.split("_"))): path
        for path in files
        if "\nkind: CustomResourceDefinition\n" in path.read_text()
    }
