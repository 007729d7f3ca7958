"""The state of the programs of a platform and of its external engines."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from vesta_common.runtime.engine_checks import engine_checks_of
from vesta_common.runtime.engine_watch import KAFKA, OBJECTS, POSTGRES, EngineCheck, describe_failure

from vesta_local.engines import external_engines
from vesta_local.engines.addresses import admin_settings
from vesta_local.home import Home
from vesta_local.processes import memory_bytes
from vesta_local.program import Program
from vesta_local.supervisor import ProcessState


@dataclass(frozen=True)
class Row:
    """One row of the table of programs."""

    name: str
    address: str
    state: str
    memory_mib: float


def row_of(program: Program, state: ProcessState) -> Row:
    """Returns the state of a program."""
    state_name = "healthy" if state.pid and program.is_healthy() else state.state.lower()
    if state_name == "healthy" and program.state is not None:
        state_name = program.state()
    return Row(program.name, program.address, state_name, memory_bytes(state.pid) / 2**20 if state.pid else 0)


def external_rows(home: Home, names: Collection[str]) -> list[Row]:
    """Returns the state of those engines of `names` that are external."""
    engines = admin_settings(home)
    checks = engine_checks_of("local", engines, (), has_objects=True)
    engines_by_program = {
        "postgres": (POSTGRES, urlsplit(engines.postgres_url).netloc.rpartition("@")[2]),
        "objects": (OBJECTS, urlsplit(engines.s3_endpoint_url).netloc),
        "events": (KAFKA, engines.kafka_bootstrap),
        "inference": ("Triton", engines.triton_address),
    }
    return [
        Row(name, address, _external_state(engine, checks.get(engine)), 0)
        for name, (engine, address) in engines_by_program.items()
        if name in names and name in external_engines.of(home).external
    ]


def _external_state(engine: str, attempt: EngineCheck | None) -> str:
    if attempt is None:
        return "external"
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - any error means that the engine is not usable
        return describe_failure(engine, error)
    return "healthy"
