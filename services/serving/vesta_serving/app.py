"""The composition root of the serving service."""

import time
from datetime import timedelta
from functools import partial

from prometheus_client import Gauge
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker
from vesta_common.events.consumer import Consumer, ConsumerMetrics, KafkaOptions
from vesta_common.events.outbox import Relay
from vesta_common.identity import Identity
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.rpc.admission import Admission, AdmissionMetrics
from vesta_common.rpc.client import open_channel
from vesta_common.runtime.engine_watch import TRITON
from vesta_common.runtime.service import App, BackgroundTask, new_registry
from vesta_common.sandbox import Sandbox
from vesta_common.storage.backlog import BACKLOG_INTERVAL, Backlog
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub
from vesta_contracts.training.v1 import ModelServiceStub

from vesta_serving.api import OUTLINED, DeploymentService, PredictionService
from vesta_serving.deployments.deployer import KEEP_INTERVAL, Deployer
from vesta_serving.event_handlers import EventHandlers
from vesta_serving.model_files import ModelFiles
from vesta_serving.predictions.image_reader import ImageReader
from vesta_serving.predictions.prediction_log import FLUSH_INTERVAL, PRUNE_INTERVAL, PredictionLog
from vesta_serving.predictions.predictor import Predictor
from vesta_serving.registry import Registry
from vesta_serving.scoring.scorer import Scorer
from vesta_serving.settings import Settings
from vesta_serving.store import SERVICE, Store
from vesta_serving.triton.replicas import Tritons

POLL_INTERVAL = timedelta(milliseconds=500)
IMAGES_AT_ONCE = 4
"""Images that are always admitted, however slow the last ones were: with fewer, the machine would idle between two batches."""
OTHER_THREADS = 16
"""RPC threads in addition to those that predictions can occupy, so that other calls find a free one."""


def build(settings: Settings) -> App:
    """Waits for the database, migrates or checks its schema, and assembles the service."""
    postgres = Postgres.of(settings, SERVICE).open()
    postgres.migrate_or_check("vesta_serving", settings)
    clock, metrics = SystemClock(), new_registry()
    store = Store(postgres, clock)
    identity = Identity.of(settings, SERVICE)
    datasets = open_channel(settings.datasets_address, identity)
    training = open_channel(settings.training_address, identity)
    media = ObjectStore.of(settings)
    # Triton reads its repository from the root of the bucket.
    repository = ObjectStore.of(settings.model_copy(update={"s3_prefix": ""}))
    registry = Registry(store, ModelServiceStub(training))
    files = ModelFiles(store, media)
    triton = Tritons(settings.triton_address, instance_count=settings.triton_instances)
    replicas = Gauge("vesta_serving_tritons", "Triton replicas", ["state"], registry=metrics)
    for state, is_available in (("available", True), ("unavailable", False)):
        replicas.labels(state).set_function(partial(triton.count, available=is_available))
    deployer = Deployer(
        store,
        registry,
        triton,
        files,
        repository,
        clock,
        gpu=settings.triton_gpu,
        instance_count=settings.triton_instances,
        idle_max=timedelta(minutes=settings.triton_idle_minutes),
    )
    admission_metrics = AdmissionMetrics(SERVICE, metrics)
    admission = Admission(
        "predict",
        timedelta(milliseconds=settings.predict_wait_max_ms),
        IMAGES_AT_ONCE,
        settings.images_in_flight_max,
        time.monotonic,
        admission_metrics,
    )
    predictor = Predictor(store, registry, files, triton, deployer, clock, admission)
    items = ItemServiceStub(datasets)
    large = LargeAnnotations(media, is_updated=settings.post_migrations)
    dataset_stub = DatasetServiceStub(datasets)
    scorer = Scorer(store, predictor, items, dataset_stub, media, large, clock)
    prediction_log = PredictionLog(store, clock, metrics, timedelta(days=settings.prediction_log_days))
    sandbox = Sandbox(settings.sandbox_processes)
    images = ImageReader(items, media, sandbox)
    loops = [
        BackgroundTask("deployer", deployer.step, POLL_INTERVAL),
        BackgroundTask("scorer", scorer.step, POLL_INTERVAL),
    ]
    backlog = Backlog(
        postgres,
        store.scoring.count_arrivals,
        ("WAITING", "SCORING"),
        Gauge("vesta_serving_arrivals", "New items that are not scored yet", ["state"], registry=metrics),
    )
    kafka = KafkaOptions.of(settings)
    return App(
        engines=settings,
        has_objects=True,
        checks={TRITON: triton.check},
        servicers=[
            DeploymentService(store, registry, predictor, prediction_log, images, dataset_stub, loops),
            PredictionService(store),
        ],
        components=[
            Relay(postgres, Broker.of(settings), settings.kafka_topic_prefix),
            Consumer(
                SERVICE, "arrivals", EventHandlers(store).handlers(), postgres, kafka, ConsumerMetrics(SERVICE, metrics)
            ),
            BackgroundTask("prediction-log", prediction_log.step, FLUSH_INTERVAL),
            BackgroundTask("pruner", prediction_log.prune, PRUNE_INTERVAL),
            BackgroundTask("backlog", backlog.step, BACKLOG_INTERVAL),
            BackgroundTask("keeper", deployer.keep, KEEP_INTERVAL),
            *loops,
        ],
        closing=[prediction_log.flush, sandbox.close, datasets.close, training.close, postgres.close],
        registry=metrics,
        rpc_threads=settings.images_in_flight_max + OTHER_THREADS,
        admission_metrics=admission_metrics,
        outlined=OUTLINED,
    )
