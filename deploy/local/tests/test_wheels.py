"""The wheels for customers: one set of one version, built if missing or outdated."""

import os
import tomllib
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

import pytest
from vesta_local import wheels


def _metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesHeaderParser().parsebytes(packed.read(name))


def test_the_sdk_wants_the_contracts_of_its_own_version_and_no_other_package_of_ours(tmp_path: Path) -> None:
    contracts, client = (_metadata(wheel) for wheel in wheels.build(folder=tmp_path))
    assert contracts["Version"] == client["Version"]
    ours = [need for need in client.get_all("Requires-Dist") if need.startswith("vesta")]
    assert ours == [f"vesta-contracts=={contracts['Version']}"]
    assert not [need for need in contracts.get_all("Requires-Dist") if need.startswith("vesta")]


def test_wheels_are_built_when_they_are_missing_or_older_than_a_source(tmp_path: Path) -> None:
    said: list[str] = []
    wheels.build_missing(said.append, tmp_path)
    wheels.build_missing(said.append, tmp_path)
    assert said == ["building the wheels of contracts and client …"]
    (client,) = tmp_path.glob("vesta_client-*.whl")
    os.utime(client, (0, 0))
    wheels.build_missing(said.append, tmp_path)
    assert said[1:] == ["building the wheels of client …"]
    assert client.stat().st_mtime > 0


def test_wheels_of_another_version_go_and_those_of_other_packages_stay(tmp_path: Path) -> None:
    for name in ("vesta_client-0.0.1-py3-none-any.whl", "other-1-py3-none-any.whl"):
        (tmp_path / name).touch()
    built = wheels.build(folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"other-1-py3-none-any.whl", *(path.name for path in built)}


def test_a_package_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    package = tmp_path / "broken"
    package.mkdir()
    (package / "pyproject.toml").write_text("[project]\nname = 'broken'\n")
    with pytest.raises(RuntimeError, match=r"the wheel of .*broken cannot be built"):
        wheels.build([package], tmp_path / "dist")


def test_what_customers_install_needs_no_later_python_than_the_platform() -> None:
    needs = {
        tomllib.loads((package / "pyproject.toml").read_text())["project"]["requires-python"]
        for package in wheels.PACKAGES
    }
    assert needs == {">=3.11"}
