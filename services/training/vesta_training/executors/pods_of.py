"""Configuration of training pods from the settings of the service."""

from pathlib import Path

import yaml

from vesta_training.executors.job_manifest import WORK_FOLDER, Pods
from vesta_training.settings import Settings

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def pods_of(settings: Settings) -> Pods:
    """Returns the configuration of training pods. They use the same object store as this service."""
    return Pods(
        image=settings.jobs_image,
        secret=settings.jobs_secret,
        service=settings.jobs_service,
        owner=settings.jobs_owner,
        queue=settings.jobs_queue,
        nodes=settings.jobs_nodes,
        gpu_resource=settings.jobs_gpu_resource,
        gpus=settings.jobs_gpus,
        shm_mib=settings.jobs_shm_mib,
        ttl_seconds=settings.jobs_ttl_seconds,
        overlay=yaml.safe_load(settings.jobs_pod_template) or {},
        environment={
            "VESTA_TRAINER_S3_ENDPOINT_URL": settings.s3_endpoint_url,
            "VESTA_TRAINER_S3_REGION": settings.s3_region,
            "VESTA_TRAINER_S3_BUCKET": settings.s3_bucket,
            "VESTA_TRAINER_S3_PREFIX": settings.s3_prefix,
            "VESTA_TRAINER_WORK_FOLDER": WORK_FOLDER,
        },
    )


def namespace_of(settings: Settings) -> str:
    """Returns the namespace of the Jobs."""
    return settings.jobs_namespace or _OWN_NAMESPACE.read_text().strip()
