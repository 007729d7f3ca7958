"""The composition root of the training service."""

from datetime import timedelta

from prometheus_client import Gauge
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.storage.backlog import BACKLOG_INTERVAL, Backlog
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, SnapshotServiceStub, TaxonomyServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub

from vesta_training.api.model_service import ModelService
from vesta_training.api.pretrained_detector_service import PretrainedDetectorService
from vesta_training.api.recipe_service import RecipeService
from vesta_training.api.study_service import StudyService
from vesta_training.api.training_run_service import TrainingRunService
from vesta_training.executors import Executor
from vesta_training.executors.local import LocalProcessExecutor
from vesta_training.hardware import thread_count, usable_cores
from vesta_training.models.deployments import Deployments
from vesta_training.models.file_remover import FileRemover
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.job_builder import Compute, Datasets
from vesta_training.settings import Settings
from vesta_training.store import SERVICE, Store
from vesta_training.sweeper import Sweeper
from vesta_training.worker import Worker

IDLE = timedelta(seconds=1)
IDLE_OF_OTHERS = timedelta(seconds=10)  # one worker that polls often is enough; the others are woken
SWEEP_INTERVAL = timedelta(minutes=1)
FILES_INTERVAL = timedelta(seconds=30)


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_training", settings)
    store = Store(postgres, SystemClock())
    book = RecipeBook(store)
    identity = Identity.of(settings, SERVICE)
    channel = open_channel(settings.datasets_address, identity)
    serving = open_channel(settings.serving_address, identity)
    deployments = Deployments(DeploymentServiceStub(serving))
    objects = ObjectStore.of(settings)
    datasets = Datasets(DatasetServiceStub(channel), SnapshotServiceStub(channel), TaxonomyServiceStub(channel))
    executors = _executors(settings, objects)
    share = thread_count(settings.threads, usable_cores(), settings.workers)
    compute = Compute(settings.device, share, settings.deadline_seconds)
    workers = [
        Worker(store, objects, executor, book, datasets, settings.work_folder, compute) for executor in executors
    ]
    loops = [
        BackgroundTask(f"trainer-{number}", worker.step, IDLE if number == 0 else IDLE_OF_OTHERS, worker.stop)
        for number, worker in enumerate(workers)
    ]
    sweeper = BackgroundTask("work-sweeper", Sweeper(store, objects, executors[0]).step, SWEEP_INTERVAL)
    remover = BackgroundTask("file-remover", FileRemover(store, objects, deployments).step, FILES_INTERVAL)
    metrics = new_registry()
    backlog = Backlog(
        postgres,
        store.runs.count_unfinished,
        ("QUEUED", "RUNNING"),
        Gauge("vesta_training_runs", "Active runs", ["state"], registry=metrics),
        Gauge("vesta_training_runs_age_seconds", "Age of the oldest one", ["state"], registry=metrics),
    )
    return App(
        engines=settings,
        has_objects=True,
        servicers=[
            RecipeService(store, book),
            TrainingRunService(store, book, datasets, loops),
            StudyService(store, book, datasets, loops),
            ModelService(store, objects, deployments, [remover]),
            PretrainedDetectorService(store, objects, settings.work_folder, [remover]),
        ],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            remover,
            sweeper,
            BackgroundTask("backlog", backlog.step, BACKLOG_INTERVAL),
            *loops,
        ],
        registry=metrics,
        closing=[*(executor.close for executor in executors), channel.close, serving.close, postgres.close],
    )


def _executors(settings: Settings, objects: ObjectStore) -> list[Executor]:
    """Returns one executor per concurrent run."""
    if settings.executor == "process":
        return [LocalProcessExecutor(settings) for _ in range(settings.workers)]
    from vesta_training.executors.kubernetes import KubernetesExecutor, in_cluster
    from vesta_training.executors.pods_of import namespace_of, pods_of

    jobs = KubernetesExecutor(in_cluster(), objects, namespace_of(settings), pods_of(settings))
    return [jobs] * settings.jobs_followed_max
