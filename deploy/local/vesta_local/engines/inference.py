"""Triton for the CPU, from the wheel `nvidia-pytriton`, in a separate virtual environment because it requires an older numpy.

Its onnxruntime backend is `triton_backend/model.py`, a Python-based backend with the name of the C++ one, so that one model repository
works on the laptop and in production.
"""

from collections.abc import Callable
from pathlib import Path

from vesta_local.engines.addresses import admin_settings
from vesta_local.health import is_answering
from vesta_local.home import Home
from vesta_local.ports import HOST
from vesta_local.program import Program
from vesta_local.settings import Settings
from vesta_local.setup import interpreter, triton

# Triton's libcurl was built with this path, and no setting can change it.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Triton copies models into this folder before it loads them, and leaves them there when it is killed; the next start deletes them.
# Triton cannot load models if the folder is missing, and does not create it.
_START = " ".join(
    [
        'rm -rf "$TRITON_AWS_MOUNT_DIRECTORY" && mkdir -p "$TRITON_AWS_MOUNT_DIRECTORY" || exit;',
        '(while kill -0 $$ 2>/dev/null; do [ -d "$TRITON_AWS_MOUNT_DIRECTORY" ] || mkdir -p "$TRITON_AWS_MOUNT_DIRECTORY";',
        "sleep 1; done) &",
        'PATH="$VIRTUAL_ENV/bin:$PATH" exec "$0" "$@"',
    ]
)


def _library_path() -> dict[str, str]:
    return {"LD_LIBRARY_PATH": interpreter.library_folder()}


def prepare(home: Home, report: Callable[[str], None] = lambda _: None) -> None:
    """Installs Triton if needed.

    Raises:
        RuntimeError: Triton does not trust the certificate of the object store.
    """
    check_authorities(admin_settings(home))
    triton.set_up(report)
    for name in home.replicas_of("inference"):
        (home.data / name).mkdir(parents=True, exist_ok=True)


def check_authorities(settings: Settings, trusted: Path = AUTHORITIES) -> None:
    """Checks that Triton trusts the object store. Triton uses the system's certificate authorities only; this cannot be configured.

    Raises:
        RuntimeError: it does not trust the object store.
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
    """Returns the server program. It listens on loopback only, and loads models only on request, so that none is loaded after a start.

    Args:
        name: of the replica, such as `inference-2`.
    """
    folder, server, ports = triton.environment_folder(), triton.server_folder(), home.ports
    settings = admin_settings(home)
    return Program(
        name=name,
        command=[
            "/bin/sh",
            "-c",
            _START,
            str(server / "bin" / "tritonserver"),
            f"--model-repository=s3://{settings.s3_endpoint_url}/{settings.s3_bucket}/{settings.triton_prefix}",
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
            "AWS_ACCESS_KEY_ID": settings.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
            "AWS_DEFAULT_REGION": settings.s3_region,
            "TRITON_AWS_MOUNT_DIRECTORY": str(home.data / name / "loaded"),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        },
        stop_signal="KILL",  # a graceful stop takes 3 s; Triton has no data to lose, and its children exit by themselves
        directory=home.data / name,
    )


def is_healthy(home: Home, name: str = "inference") -> bool:
    """Whether the server responds. Its readiness is not used, because one model that failed to load makes the server not ready."""
    return is_answering(home.address(f"{name}_http"), "/v2/health/live")
