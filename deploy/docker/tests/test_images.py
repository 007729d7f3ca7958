"""The images: what their files pin, and a service that is built and runs as the chart runs it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from vesta_common.ids import new_id
from vesta_images import builder, engine_version
from vesta_images.catalogue import BY_NAME, DOCKERFILE, IMAGES, REQUIREMENTS, ROOT, Image, third_party_of
from vesta_local import services
from vesta_local.health import is_serving
from vesta_local.platform import Platform
from vesta_local.setup.downloads import normalised, read_pins
from vesta_local.testing import identity_settings

UID = 10001
NAME = "conductor"
IDENTITY = "/tmp/identity"


def _pinned(image: Image) -> dict[str, str]:
    lines = [line for file in image.all_requirements() for line in file.read_text().splitlines()]
    return {pin.name: pin.version for pin in read_pins(lines)}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_pins_all_that_its_packages_name(image: Image) -> None:
    wanted = [*third_party_of(image.packages), *image.third_party]
    names = {normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in wanted}  # type: ignore[index]
    assert names <= set(_pinned(image)), "`make lock` pins anew what a pyproject.toml names"


@pytest.mark.parametrize(
    "image", [image for image in IMAGES if image.name not in ("inference-cpu", "kafka")], ids=lambda image: image.name
)
def test_an_image_has_the_versions_of_the_lock(image: Image) -> None:
    locked = {pin.name: pin.version for pin in read_pins((ROOT / "requirements.lock").read_text().splitlines())}
    locked |= {
        name: version for name, version in _pinned(image).items() if name == "setuptools"
    }  # the lock leaves it to Python
    differing = {name: version for name, version in _pinned(image).items() if locked.get(name) != version}
    assert differing == {}, "`make lock` pins anew what requirements.lock has in another version"


def test_every_pin_has_a_hash() -> None:
    lines = [line for file in REQUIREMENTS.glob("*.txt") for line in file.read_text().splitlines()]
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line)] == []
    assert pins


def test_torch_is_in_the_trainer_alone() -> None:
    assert [image.name for image in IMAGES if "torch" in _pinned(image)] == ["trainer"]


def test_the_dockerfile_has_a_stage_for_each_image() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE))
    assert set(BY_NAME) <= stages


def test_the_images_of_engines_have_a_new_version_when_their_contents_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_version.is_current(), "`make lock` gives changed engines the next version"
    monkeypatch.setattr(engine_version, "FILE", Path(shutil.copy(engine_version.FILE, tmp_path)))
    monkeypatch.setattr(engine_version, "DOCKERFILE", Path(shutil.copy(DOCKERFILE, tmp_path)))
    before = int(engine_version.read())
    engine_version.DOCKERFILE.write_text(DOCKERFILE.read_text().replace("vesta_datasets", "vesta_dataset"))
    assert engine_version.is_current()  # nothing of the engines
    engine_version.DOCKERFILE.write_text(DOCKERFILE.read_text().replace("EXPOSE 5432", "EXPOSE 5433"))
    assert not engine_version.is_current()
    engine_version.write()
    engine_version.write()
    assert engine_version.is_current()
    assert int(engine_version.read()) == before + 1


def test_the_chart_names_the_present_version_of_the_engines() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm/vesta/values.yaml").read_text())
    assert values["image"]["enginesTag"] == engine_version.read()
    assert (
        builder.Build("a.example", "1.2.3", "").reference("kafka") == f"a.example/vesta-kafka:{engine_version.read()}"
    )


@pytest.fixture(scope="session")
def built() -> str:
    """The image of a service, built; what has not changed comes from the builder's layers."""
    if not shutil.which("buildah") or not shutil.which("runc") or os.geteuid() != 0:
        pytest.skip(
            "no image is built and run here: that takes buildah, runc and root (apt-get install buildah runc debootstrap)"
        )
    try:
        base = builder.choose_base("buildah", "", print)
    except RuntimeError as error:
        pytest.skip(f"no image is built here: {error}")
    how = builder.Build("localhost", "test", base)
    builder.build("buildah", NAME, how)
    return how.reference(NAME)


@pytest.fixture
def root(built: str) -> Iterator[Path]:
    """The image's files."""
    container = subprocess.run(["buildah", "from", built], capture_output=True, text=True, check=True).stdout.strip()
    try:
        mounted = subprocess.run(
            ["buildah", "mount", container], capture_output=True, text=True, check=True
        ).stdout.strip()
        yield Path(mounted)
    finally:
        subprocess.run(["buildah", "rm", container], capture_output=True, check=True)


def _configuration(image: str) -> dict[str, object]:
    answer = subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True, check=True).stdout
    return dict(json.loads(answer)["OCIv1"]["config"])


def _bundle(folder: Path, root: Path, image: str, settings: dict[str, str], command: list[str]) -> Path:
    """What runc runs: the image as the chart runs it, in the network of this machine, where the tests' engines listen."""
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    spec = json.loads((folder / "config.json").read_text())
    configured = _configuration(image)
    identity = folder / "identity"
    spec["root"] = {"path": str(root), "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": UID, "gid": UID},
        "args": command or configured["Entrypoint"],
        "cwd": configured["WorkingDir"],
        "env": [*configured["Env"], *(f"{key}={value}" for key, value in settings.items())],  # type: ignore[misc]
        "capabilities": {},
        "noNewPrivileges": True,
    }
    spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
    if identity.exists():
        options = ["rbind", "ro"]
        spec["mounts"].append({"destination": IDENTITY, "type": "bind", "source": str(identity), "options": options})
    spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
    (folder / "config.json").write_text(json.dumps(spec))
    return folder


def _identity(folder: Path) -> dict[str, str]:
    """Copies the service's certificate, key and authority to where the container's user reads them; answers the settings that name them."""
    folder.mkdir()
    found = {}
    for setting, source in identity_settings(NAME).items():
        copy = Path(shutil.copy(source, folder))
        copy.chmod(0o444)
        found[f"VESTA_{NAME.upper()}_{setting.upper()}"] = f"{IDENTITY}/{copy.name}"
    return found


@pytest.mark.timeout(1800)  # the first build downloads what an image needs, on a machine that may be busy
def test_the_image_of_a_service_runs_as_the_chart_runs_it(
    built: str, root: Path, tmp_path: Path, engines: Platform
) -> None:
    settings = services.environment(engines.home, NAME)
    del settings[f"VESTA_{NAME.upper()}_STORAGE_PATH"]  # a folder of this machine, which the container does not see
    settings.pop(
        f"VESTA_{NAME.upper()}_KAFKA_CONSUMER_CLASS", None
    )  # a class of the laptop's, which the image does not have
    settings |= _identity(tmp_path / "identity")
    _bundle(tmp_path, root, built, settings, [])
    with (tmp_path / "log").open("w+") as log:
        container = f"vesta-test-{new_id()}".lower()
        process = subprocess.Popen(["runc", "run", "--bundle", str(tmp_path), container], stdout=log, stderr=log)
        try:
            address = engines.home.address(NAME)
            assert _becomes_healthy(process, address), (tmp_path / "log").read_text()
            subprocess.run(["runc", "kill", container, "TERM"], check=True)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
        finally:
            if process.poll() is None:
                subprocess.run(["runc", "kill", container, "KILL"], check=False)
                process.wait()


def _becomes_healthy(process: "subprocess.Popen[bytes]", address: str) -> bool:
    while not is_serving(address):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return False
    return True


@pytest.mark.timeout(1800)
def test_the_image_of_a_service_is_closed_and_has_nothing_that_builds(built: str, root: Path, tmp_path: Path) -> None:
    assert _configuration(built)["User"] == f"{UID}:{UID}"
    assert not [name for name in ("gcc", "cc", "make", "pip", "pip3", "git") if (root / "usr/bin" / name).exists()]
    assert not list((root / "opt/vesta").rglob("pip")), "pip is in the environment"
    assert not list((root / "opt/vesta").rglob("site-packages/torch"))
    writes = (
        "import os, sys; sys.exit(sum(os.access(place, os.W_OK) for place in ('/', '/opt/vesta', '/etc', '/var/lib')))"
    )
    _bundle(tmp_path, root, built, {}, ["python", "-c", writes])
    subprocess.run(["runc", "run", "--bundle", str(tmp_path), f"vesta-test-{new_id()}".lower()], check=True)


@pytest.mark.timeout(1800)
def test_the_bill_of_materials_names_every_package_in_the_image(root: Path) -> None:
    bill = json.loads((root / f"opt/vesta/share/sbom/vesta-{NAME}.cdx.json").read_text())
    named = {(component["name"], component["version"]) for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert {"libc6", "python3.11"} <= {name for name, _ in named}
    assert set(_pinned(BY_NAME[NAME]).items()) <= {(normalised(name), version) for name, version in named}
