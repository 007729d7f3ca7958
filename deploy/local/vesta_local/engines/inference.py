"""Triton for the CPU, from the wheel `nvidia-pytriton`, in an environment of its own: it wants an older numpy.

Its onnxruntime backend is `triton_backend/model.py`, a Python-based backend under the name of the C++ one, so that one model repository
serves the laptop and production.
"""

from collections.abc import Callable
from pathlib import Path

from vesta_local.engines.addresses import admin_settings
from vesta_local.health import is_answering
from vesta_local.home import HOST, Home
from vesta_local.program import Program
from vesta_local.settings import Settings
from vesta_local.setup import interpreter, triton

# Its libcurl was built for this file, and heeds no setting that names another.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Triton copies models here before it loads them and, killed, leaves them: the next start clears it.
# It cannot load any where the folder was deleted, and does not make it again itself.
_START = " ".join(
    [
        'rm -rf "$TRITON_AWS_MOUNT_DIRECTORY" && mkdir -p "$TRITON_AWS_MOUNT_DIRECTORY" || exit;',
        '(while kill -0 $$ 2>/dev/null; do mkdir -p "$TRITON_AWS_MOUNT_DIRECTORY"; sleep 1; done) &',
        'PATH="$VIRTUAL_ENV/bin:$PATH" exec "$0" "$@"',
    ]
)


def _library_path() -> dict[str, str]:
    return {"LD_LIBRARY_PATH": interpreter.library_folder()}


def prepare(home: Home, say: Callable[[str], None] = lambda _: None) -> None:
    """Makes sure that Triton is installed.

    Raises:
        RuntimeError: it would not trust the object store.
    """
    check_authorities(admin_settings(home))
    triton.set_up(say)
    for name in home.replicas_of("inference"):
        (home.data / name).mkdir(parents=True, exist_ok=True)


def check_authorities(settings: Settings, trusted: Path = AUTHORITIES) -> None:
    """Checks that Triton trusts the object store: it knows the system's authorities alone, and cannot be told of others.

    Raises:
        RuntimeError: it does not.
    """
    path = Path(settings.s3_ca_file)
    if not settings.s3_endpoint_url.startswith("https:") or not settings.s3_ca_file:
        return
    if path.read_text().strip() not in (trusted.read_text() if trusted.exists() else ""):
        raise RuntimeError(
            f"Triton trusts only the authorities in {trusted}, and those of {path} are not among them; add them there (Debian: copy it "
            "into /usr/local/share/ca-certificates and run update-ca-certificates), or name a Triton elsewhere (VESTA_LOCAL_TRITON_ADDRESS)"
        )


def program(home: Home, name: str = "inference") -> Program:
    """The server: models are loaded on command alone, so none is after a restart; it listens on loopback alone.

    Args:
        name: of the replica, such as `inference-2`.
    """
    folder, server, ports = triton.environment_folder(), triton.server_folder(), home.ports
    found = admin_settings(home)
    return Program(
        name=name,
        command=[
            "/bin/sh",
            "-c",
            _START,
            str(server / "bin" / "tritonserver"),
            f"--model-repository=s3://{found.s3_endpoint_url}/{found.s3_bucket}/{found.triton_prefix}",
            "--model-control-mode=explicit",
            f"--backend-directory={server / 'backends'}",
            f"--http-address={HOST}",
            f"--http-port={ports[f'{name}_http']}",
            f"--grpc-address={HOST}",
            f"--grpc-port={ports[name]}",
            f"--metrics-address={HOST}",
            f"--metrics-port={ports[f'{name}_metrics']}",
            "--disable-auto-complete-config",
        ],
        address=home.address(name),
        is_healthy=lambda: is_healthy(home, name),
        environment={
            "VIRTUAL_ENV": str(folder),
            **_library_path(),
            "AWS_ACCESS_KEY_ID": found.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": found.s3_secret_key.get_secret_value(),
            "AWS_DEFAULT_REGION": found.s3_region,
            "TRITON_AWS_MOUNT_DIRECTORY": str(home.data / name / "loaded"),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        },
        stop_signal="KILL",  # asked, it takes 3 s; it keeps nothing, and its children end themselves
        directory=home.data / name,
    )


def is_healthy(home: Home, name: str = "inference") -> bool:
    """True where the server answers. It says that it is not ready for as long as any model could not be loaded."""
    return is_answering(home.address(f"{name}_http"), "/v2/health/live")
