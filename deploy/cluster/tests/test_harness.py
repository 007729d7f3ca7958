"""The parts of a cluster that can be tested without one: its programs' cache, processes, certificates, images and network."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import psutil
import pytest
import yaml
from cryptography import x509
from vesta_cluster import binaries, certificates, images, network, node
from vesta_cluster.cluster import Cluster
from vesta_cluster.errors import ClusterError, Unavailable
from vesta_cluster.processes import Processes

WAITS = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path / "processes")


def test_a_stopped_process_is_gone_and_leaves_no_record(processes: Processes) -> None:
    processes.start("one", WAITS)
    started = processes.find("one")
    assert started is not None

    processes.stop("one")

    assert not psutil.pid_exists(started.pid)
    assert processes.names() == []


def test_a_recorded_pid_that_another_process_has_now_is_left_alone(processes: Processes) -> None:
    processes.start("one", WAITS)
    record = processes.folder / "one.json"
    kept = record.read_text()
    record.write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))

    assert processes.find("one") is None
    processes.stop("one")  # would end this test

    record.write_text(kept)
    processes.stop("one")


def test_a_process_that_ended_is_reported_with_the_end_of_its_log(processes: Processes) -> None:
    processes.start("one", [sys.executable, "-c", "raise SystemExit('no such flag')"])
    ended = processes.find("one")
    if ended is not None:
        ended.wait(10)

    with pytest.raises(ClusterError, match="no such flag"):
        processes.check("one")


def test_a_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    processes = Processes(tmp_path, stop_seconds=0.2)
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    stubborn = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w').close(); signal.pause()"
    processes.start("one", [sys.executable, "-c", stubborn])
    ready.read_text()  # returns when the process ignores the signal
    started = processes.find("one")
    assert started is not None

    processes.stop("one")

    assert not psutil.pid_exists(started.pid)


def test_every_certificate_is_signed_by_its_authority_and_no_key_can_be_read_by_others(tmp_path: Path) -> None:
    certificates.write_all(tmp_path / "pki", "10.77.0.2", "node1", "https://10.77.0.2:6443")

    read = {path.stem: x509.load_pem_x509_certificate(path.read_bytes()) for path in (tmp_path / "pki").glob("*.crt")}
    for name, certificate in read.items():
        certificate.verify_directly_issued_by(read["front" if name.startswith("front") else "ca"])
    secret = [*(tmp_path / "pki").glob("*.key"), *(tmp_path / "pki").glob("*.kubeconfig")]
    assert len(secret) >= len(read)
    assert {path.stat().st_mode & 0o077 for path in secret} == {0}
    kubeconfig = yaml.safe_load((tmp_path / "pki" / "admin.kubeconfig").read_text())
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://10.77.0.2:6443"


def test_an_archive_of_one_program_is_an_image_whose_layer_has_the_digest_that_its_config_names(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"content")
    images.write_archive(tmp_path / "image.tar", "vesta.test/program:1", {"program": program}, ["/program"])

    with tarfile.open(tmp_path / "image.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    [manifest] = json.loads(content["manifest.json"])
    config = json.loads(content[manifest["Config"]])
    assert manifest["RepoTags"] == ["vesta.test/program:1"]
    assert config["config"]["Cmd"] == ["/program"]
    [layer] = manifest["Layers"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content[layer]).hexdigest()}"]


def test_without_go_the_build_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VESTA_CACHE", str(tmp_path))

    with pytest.raises(Unavailable, match=r"install Go 1\.26, or set KUBECONFIG"):
        binaries.ensure(["etcd"], lambda _: None)


def test_the_packages_that_a_node_needs_are_named_and_not_installed(tmp_path: Path) -> None:
    assert {"runc", "iptables", "ipset", "conntrack"} <= set(node.missing_packages(path=str(tmp_path)))


def test_every_version_that_the_programs_report_is_the_one_that_the_module_pins() -> None:
    pinned = (binaries.MODULE / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{binaries.KUBERNETES_VERSION}\n" in pinned
    assert f"github.com/containerd/containerd/v2 v{binaries.CONTAINERD_VERSION}\n" in pinned


def test_taking_down_what_was_never_up_is_no_error(tmp_path: Path) -> None:
    Cluster(tmp_path / "none").down()
    assert not (tmp_path / "none").exists()


def test_loading_an_image_into_a_cluster_that_is_down_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="vesta_cluster up"):
        Cluster(tmp_path / "none").load([tmp_path / "image.tar"])


@pytest.mark.skipif(os.geteuid() != 0 or network.path().exists(), reason="needs root, and no cluster beside it")
def test_the_network_of_a_node_has_no_way_out_and_leaves_nothing_behind() -> None:
    network.create("10.96.0.0/16")
    try:
        network.create("10.96.0.0/16")  # a second time changes nothing
        routes = subprocess.run([*network.inside(), "ip", "route"], capture_output=True, text=True, check=True).stdout
    finally:
        network.remove()
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert "10.96.0.0/16" in routes
    assert "default" not in routes
    assert not network.path().exists()
    assert "vesta-host" not in links
