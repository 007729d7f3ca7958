"""A home keeps its ports and secrets, avoids ports that are in use, and protects its secrets from other users."""

import json
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vesta_local.home import SOCKET_FOLDER_LENGTH_MAX, Home
from vesta_local.ports import DEFAULT_PORTS, GRPC_PORT_OFFSET, HOST


def _listener(port: int = 0) -> socket.socket:
    listener = socket.create_server((HOST, port))
    listener.listen()
    return listener


def _a_free_port() -> int:
    with _listener() as listener:
        return int(listener.getsockname()[1])


def test_a_taken_port_is_passed_over_and_the_choice_is_remembered(tmp_path: Path) -> None:
    with _listener() as taken:
        default = {**DEFAULT_PORTS, "gateway": taken.getsockname()[1]}
        ports = Home(tmp_path, default).choose_ports()
    assert ports["gateway"] != default["gateway"]
    assert Home(tmp_path, default).ports == ports


def test_a_port_taken_while_the_platform_was_down_is_chosen_anew_and_the_others_stay(tmp_path: Path) -> None:
    default = {**DEFAULT_PORTS, "gateway": _a_free_port()}
    before = Home(tmp_path, default).choose_ports()
    with _listener(before["gateway"]):
        after = Home(tmp_path, default).choose_ports()
    assert after["gateway"] != before["gateway"]
    assert {**after, "gateway": 0} == {**before, "gateway": 0}


def test_a_port_whose_twin_is_taken_is_passed_over(tmp_path: Path) -> None:
    with _listener() as twin:
        port = twin.getsockname()[1] - GRPC_PORT_OFFSET
        assert Home(tmp_path, {**DEFAULT_PORTS, "objects": port}).choose_ports()["objects"] != port


def test_no_two_doors_share_a_port(tmp_path: Path) -> None:
    ports = Home(tmp_path, dict.fromkeys(DEFAULT_PORTS, _a_free_port())).choose_ports()
    assert len(set(ports.values())) == len(DEFAULT_PORTS)


def test_looking_at_a_home_chooses_no_ports(tmp_path: Path) -> None:
    assert Home(tmp_path).ports == DEFAULT_PORTS
    assert not (tmp_path / "run" / "ports.json").exists()
    (tmp_path / "run" / "ports.json").write_text('{"gateway": 4711}')
    assert Home(tmp_path).ports == {**DEFAULT_PORTS, "gateway": 4711}


def test_a_running_platform_keeps_the_ports_it_listens_on_and_gets_those_of_new_doors(tmp_path: Path) -> None:
    before = Home(tmp_path, {"gateway": _a_free_port()}).choose_ports()
    with _listener(before["gateway"]):
        home = Home(tmp_path, {**before, "objects": _a_free_port(), "events": before["gateway"]})
        after = home.choose_missing_ports()
    assert after["gateway"] == before["gateway"]
    assert after["events"] > before["gateway"]
    assert Home(tmp_path, {}).ports == after == home.ports


def test_of_many_that_make_secrets_at_once_all_know_the_same(tmp_path: Path) -> None:
    for attempt in range(20):
        root = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _, root=root: (Home(root).owner_key, str(Home(root).secrets)), range(8)))
        assert len(set(found)) == 1
        assert not [path.name for path in (*root.iterdir(), *(root / "run").iterdir()) if path.name.startswith(".")]


def test_secrets_are_made_once_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert (Home(tmp_path).secrets, Home(tmp_path).owner_key) == (home.secrets, home.owner_key)
    for path in (home.owner_key_path, home.run / "secrets.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_addresses_are_written_for_others_to_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert json.loads(home.write_addresses().read_text())["gateway"] == home.address("gateway")


def test_a_deep_home_keeps_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep, deeper = Home(tmp_path / ("d" * 100)), Home(tmp_path / ("d" * 100) / "home")
    assert len(str(deep.sockets)) <= SOCKET_FOLDER_LENGTH_MAX
    assert Home(deep.root).sockets == deep.sockets != deeper.sockets
    deep.make_sockets()
    deep.remove_sockets()
    assert not deep.sockets.exists()


def test_the_keys_of_sources_are_made_once_and_more_may_be_added(tmp_path: Path) -> None:
    made = Home(tmp_path).source_keys
    assert (len(made), Home(tmp_path).source_keys) == (44, made)
    path = Home(tmp_path).source_keys_path
    assert path.stat().st_mode & 0o077 == 0
    path.write_text(f"newer\n{made}\n")
    assert Home(tmp_path).source_keys == f"newer,{made}"
