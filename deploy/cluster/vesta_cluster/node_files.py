"""The configuration files of a node: kubelet, containerd, the network of the pods, and the registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vesta_cluster import network

POD_RANGE = "10.244.0.0/24"
DNS_IP = "10.96.0.10"
PAUSE_IMAGE = "vesta.test/pause:1"
PLUGINS = Path("/usr/lib/cni")
REGISTRY = f"{network.NODE_IP}:5000"


def write_all(state: Path, pki: Path) -> None:
    """Writes the files into the folder of the node.

    Args:
        pki: the folder of the certificates and kubeconfigs.
    """
    for name, content in {
        "kubelet.yaml": yaml.safe_dump(_kubelet_settings(state, pki)),
        "registry.yaml": yaml.safe_dump(_registry_settings(state)),
        "containerd.toml": _CONTAINERD.format(state=state, plugins=PLUGINS, pause=PAUSE_IMAGE),
        "cni/10-bridge.conflist": _BRIDGE.replace("STATE", str(state)).replace("PODS", POD_RANGE),
        f"registries/{REGISTRY}/hosts.toml": f'server = "http://{REGISTRY}"\n',
    }.items():
        path = state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _kubelet_settings(state: Path, pki: Path) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,  # many machines still use version 1 of the cgroups
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock",
        "imageServiceEndpoint": f"unix://{state}/containerd.sock",
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "resolvConf": "",
        "failSwapOn": False,
        "address": network.NODE_IP,
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": f"{pki}/kubelet-serving.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-serving.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{state}/podlogs",
        "volumePluginDir": f"{state}/volume-plugins",
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        # An imported image may also have been pulled by another name.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "imageGCHighThresholdPercent": 100,  # keeps imported images, which are in no registry
        "seccompDefault": True,
    }


def _registry_settings(state: Path) -> Mapping[str, Any]:
    return {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": f"{state}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
        "log": {"level": "warn"},
    }


_CONTAINERD = """version = 3
root = "{state}/containerd"
state = "{state}/run"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{state}/registries"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true  # a container's root often may not lower it
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{state}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
"""
_BRIDGE = """{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "STATE/addresses", "ranges": [[{"subnet": "PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""
