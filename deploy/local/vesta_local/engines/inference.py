"""Triton for the CPU, from the wheel `nvidia-pytriton`, in an environment of its own: it wants an older numpy.

Its onnxruntime backend is `triton_backend/model.py`, a Python-based backend under the name of the C++ one, so that one model repository
serves the laptop and production.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vesta_local.engines import objects
from vesta_local.health import is_answering
from vesta_local.home import HOST, Home
from vesta_local.program import Program
from vesta_local.setup import interpreter

# Each is installed alone: what they name as dependencies Triton's Python does not import. onnxruntime is the one that training checks with.
VERSIONS = ("numpy==1.26.4", "onnxruntime==1.32.0", "nvidia-pytriton==0.7.0")
REPOSITORY_PREFIX = "triton"
_BACKEND = Path(__file__).parent.parent / "triton_backend" / "model.py"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Triton copies models here before it loads them and, killed, leaves them: the next start clears it.
_START = """
rm -rf "$TRITON_AWS_MOUNT_DIRECTORY" && mkdir -p "$TRITON_AWS_MOUNT_DIRECTORY" && PATH="$VIRTUAL_ENV/bin:$PATH" exec "$0" "$@"
""".strip()


def environment_folder() -> Path:
    """Triton's own virtual environment, beside ours."""
    return Path(sys.prefix).parent / ".venv-triton"


def _server_folder() -> Path:
    return environment_folder() / "lib" / f"python{_PYTHON}" / "site-packages" / "pytriton" / "tritonserver"


def setup(say: Callable[[str], None] = lambda _: None) -> None:
    """Makes Triton's environment, once; a change of a version or of our backend makes it anew.

    Raises:
        RuntimeError: this Python lacks what Triton needs; says what would work.
    """
    folder = environment_folder()
    stamp = folder / ".installed"
    wanted = "\n".join([*VERSIONS, _PYTHON, _BACKEND.read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if found := interpreter.problems():
        raise RuntimeError("\n".join(found))
    say("installing Triton for the CPU (once; about a minute) …")
    stamp.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    subprocess.run([*pip, *VERSIONS], check=True)
    server = _server_folder()
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        there = ", ".join(sorted(path.name for path in stub.parents[1].iterdir()))
        raise RuntimeError(
            f"Triton has no part for Python {_PYTHON}, only for {there}: make the environment with one of these"
        )
    shutil.copy2(stub, server / "backends" / "python" / stub.name)
    backend = server / "backends" / "onnxruntime"
    backend.mkdir(exist_ok=True)
    shutil.copy2(_BACKEND, backend / "model.py")
    stamp.write_text(wanted)


def _library_path() -> dict[str, str]:
    return {"LD_LIBRARY_PATH": interpreter.library_folder()}


def prepare(home: Home, say: Callable[[str], None] = lambda _: None) -> None:
    """Makes sure that Triton is installed."""
    setup(say)
    (home.data / "inference").mkdir(parents=True, exist_ok=True)


def finish_repository(home: Home) -> None:
    """Puts a first object below the repository's prefix: Triton refuses a repository that is not there."""
    store = objects.client(home, objects.FINISH_ATTEMPTS)
    store.put_object(Bucket="vesta", Key=f"{REPOSITORY_PREFIX}/.repository", Body=b"here")


def program(home: Home) -> Program:
    """The server: models are loaded on command alone, so none is after a restart; it listens on loopback alone."""
    folder, server, ports = environment_folder(), _server_folder(), home.ports
    return Program(
        name="inference",
        command=[
            "/bin/sh",
            "-c",
            _START,
            str(server / "bin" / "tritonserver"),
            f"--model-repository=s3://{objects.endpoint(home)}/vesta/{REPOSITORY_PREFIX}",
            "--model-control-mode=explicit",
            f"--backend-directory={server / 'backends'}",
            f"--http-address={HOST}",
            f"--http-port={ports['inference_http']}",
            f"--grpc-address={HOST}",
            f"--grpc-port={ports['inference']}",
            f"--metrics-address={HOST}",
            f"--metrics-port={ports['inference_metrics']}",
            "--disable-auto-complete-config",
        ],
        address=home.address("inference"),
        is_healthy=lambda: is_healthy(home),
        environment={
            "VIRTUAL_ENV": str(folder),
            **_library_path(),
            "AWS_ACCESS_KEY_ID": home.secrets["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": home.secrets["s3_secret_key"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "TRITON_AWS_MOUNT_DIRECTORY": str(home.data / "inference" / "loaded"),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        },
        stop_signal="KILL",  # asked, it takes 3 s; it keeps nothing, and its children end themselves
        directory=home.data / "inference",
    )


def is_healthy(home: Home) -> bool:
    """True where the server says that it is ready."""
    return is_answering(home.address("inference_http"), "/v2/health/ready")
