"""Triton for the CPU, from the wheel `nvidia-pytriton`, in an environment of its own: it wants an older numpy.

Its onnxruntime backend is `triton_backend/model.py`, a Python-based backend under the name of the C++ one, so that one model repository
serves the laptop and production.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

from vesta_local.engines import objects
from vesta_local.home import HOST, Home
from vesta_local.program import Program

VERSIONS = ("numpy==1.26.4", "onnxruntime==1.23.2", "nvidia-pytriton==0.7.0")
REPOSITORY_PREFIX = "triton"
_BACKEND = Path(__file__).parent.parent / "triton_backend" / "model.py"


def environment_folder() -> Path:
    """Triton's own virtual environment, beside ours."""
    return Path(sys.prefix).parent / ".venv-triton"


def _server_folder() -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment_folder() / "lib" / version / "site-packages" / "pytriton" / "tritonserver"


def setup() -> None:
    """Makes Triton's environment, once; a change of a version or of our backend makes it anew."""
    folder = environment_folder()
    stamp = folder / ".installed"
    wanted = "\n".join([*VERSIONS, _BACKEND.read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *VERSIONS[:2]], check=True)
    subprocess.run([*pip, "--no-deps", VERSIONS[2]], check=True)
    server = _server_folder()
    stub = (
        server
        / "python_backend_stubs"
        / f"{sys.version_info.major}.{sys.version_info.minor}"
        / "triton_python_backend_stub"
    )
    shutil.copy2(stub, server / "backends" / "python" / stub.name)
    backend = server / "backends" / "onnxruntime"
    backend.mkdir(exist_ok=True)
    shutil.copy2(_BACKEND, backend / "model.py")
    stamp.write_text(wanted)


def prepare(home: Home) -> None:
    """Makes sure that Triton finds a repository on the object store, however empty."""
    setup()
    (home.data / "inference").mkdir(parents=True, exist_ok=True)


def finish(home: Home) -> None:
    """Puts a first object below the repository's prefix: Triton refuses a repository that is not there."""
    objects.client(home).put_object(Bucket="vesta", Key=f"{REPOSITORY_PREFIX}/.repository", Body=b"")


def program(home: Home) -> Program:
    """The server: models are loaded on command alone; it listens on loopback alone."""
    folder, server, ports = environment_folder(), _server_folder(), home.ports
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(server / "external_libs"), str(server / "lib")]
    return Program(
        name="inference",
        command=[
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
            "--exit-timeout-secs=3",
            "--disable-auto-complete-config",
        ],
        address=home.address("inference"),
        is_healthy=lambda: is_healthy(home),
        environment={
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "LD_LIBRARY_PATH": ":".join(libraries),
            "AWS_ACCESS_KEY_ID": home.secrets["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": home.secrets["s3_secret_key"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        },
        stop_wait_seconds=6,
        directory=home.data / "inference",
    )


def is_healthy(home: Home) -> bool:
    """True where the server says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{home.address('inference_http')}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
