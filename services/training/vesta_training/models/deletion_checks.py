"""Checks whether models and versions can be deleted, or are still in use. Pure functions."""

from collections.abc import Iterable, Mapping

from vesta_common.errors import FailedPrecondition
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import ModelVersion, TrainingRun


def deployed(deployments: Iterable[Deployment]) -> dict[str, str]:
    """Returns deployments by the versions that they serve, are about to serve, or can be rolled back to."""
    return {
        version: deployment.name
        for deployment in deployments
        for version in (deployment.previous_version, deployment.model_version, deployment.stable_version)
        if version
    }


def check_unused(
    versions: Iterable[ModelVersion], deployment_of: Mapping[str, str], open_runs: Iterable[TrainingRun]
) -> None:
    """Checks that the versions are not in use.

    Args:
        deployment_of: see `deployed`.
        open_runs: the unfinished runs of the project.

    Raises:
        FailedPrecondition: MODEL_VERSION_IN_USE; the message names the user.
    """
    run_of = {run.champion: run.name for run in open_runs if run.champion}
    for version in versions:
        if version.name in deployment_of:
            user = deployment_of[version.name]
            raise _in_use(
                version,
                user,
                f"it is the stable, requested or previous version of {user}; delete that deployment, "
                "or deploy other versions twice",
            )
        if version.name in run_of:
            user = run_of[version.name]
            raise _in_use(version, user, f"{user} compares with it; cancel that run, or wait until it ends")


def check_removable(
    model: str, versions: Iterable[ModelVersion], open_runs: Iterable[TrainingRun], *, force: bool
) -> None:
    """Checks that no unfinished run creates a version of the model, and that it has no versions unless `force` is set.

    Raises:
        FailedPrecondition: MODEL_NOT_EMPTY or MODEL_IN_USE.
    """
    count = len(list(versions))
    if count and not force:
        raise FailedPrecondition(
            f"{model} has {count} version{'s' * (count != 1)}; delete them first, or set force to delete them too",
            reason="MODEL_NOT_EMPTY",
            metadata={"name": model},
        )
    for run in open_runs:
        if run.model == model:
            raise FailedPrecondition(
                f"{run.name} creates a version of {model}; cancel that run, or wait until it ends",
                reason="MODEL_IN_USE",
                metadata={"name": model, "used_by": run.name},
            )


def _in_use(version: ModelVersion, user: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{version.name} is in use: {why}",
        reason="MODEL_VERSION_IN_USE",
        metadata={"name": version.name, "used_by": user},
    )
