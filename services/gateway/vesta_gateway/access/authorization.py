"""Authorization: the right to call each RPC, and isolation between projects. Applies to REST and gRPC. Pure.

docs/roles.md is generated from this table.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import reduce

from google.protobuf.message import Message
from vesta_common.errors import InvalidArgument, PermissionDenied, Violation
from vesta_common.resources.names import check_name
from vesta_contracts.gateway.v1 import Role

from vesta_gateway.access.caller import Caller, role_word
from vesta_gateway.access.references import check_references, projects_of, references_in
from vesta_gateway.contracts.methods import Rpc


class Right(Enum):
    """Who may call an RPC. Roles are those of the caller in the project of the request."""

    NOBODY = "services only"
    PLATFORM_OWNER = "the platform's owner"
    ANY_MEMBER = "every key"
    OWNERS = "owner"
    ENGINEERS = "engineer, owner"
    REVIEWERS = "reviewer, engineer, owner"
    ANNOTATORS = "annotator, reviewer, engineer, owner"
    READERS = "viewer, annotator, reviewer, engineer, owner"
    PREDICTION_READERS = "viewer, reviewer, engineer, owner"


NOBODY, PLATFORM_OWNER, ANY_MEMBER = Right.NOBODY, Right.PLATFORM_OWNER, Right.ANY_MEMBER
OWNERS, ENGINEERS, REVIEWERS = Right.OWNERS, Right.ENGINEERS, Right.REVIEWERS
ANNOTATORS, READERS, PREDICTION_READERS = Right.ANNOTATORS, Right.READERS, Right.PREDICTION_READERS

ROLES: Mapping[Right, "frozenset[Role.ValueType]"] = {
    OWNERS: frozenset({Role.ROLE_OWNER}),
    ENGINEERS: frozenset({Role.ROLE_ENGINEER, Role.ROLE_OWNER}),
    REVIEWERS: frozenset({Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER}),
    ANNOTATORS: frozenset({Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER}),
    READERS: frozenset(
        {Role.ROLE_VIEWER, Role.ROLE_ANNOTATOR, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER}
    ),
    PREDICTION_READERS: frozenset({Role.ROLE_VIEWER, Role.ROLE_REVIEWER, Role.ROLE_ENGINEER, Role.ROLE_OWNER}),
}

RIGHTS: Mapping[str, Right] = {
    # Engineers manage campaigns. Annotators answer, reviewers decide.
    "vesta.annotation.v1.CampaignService.CreateCampaign": ENGINEERS,
    "vesta.annotation.v1.CampaignService.GetCampaign": READERS,
    "vesta.annotation.v1.CampaignService.ListCampaigns": READERS,
    "vesta.annotation.v1.CampaignService.UpdateCampaign": ENGINEERS,
    "vesta.annotation.v1.CampaignService.DeleteCampaign": ENGINEERS,
    "vesta.annotation.v1.CampaignService.GetAgreement": REVIEWERS,
    "vesta.annotation.v1.CampaignService.GetGuidelines": READERS,
    "vesta.annotation.v1.ReviewService.CreateReview": REVIEWERS,
    "vesta.annotation.v1.ReviewService.GetReview": READERS,
    "vesta.annotation.v1.ReviewService.ListReviews": READERS,
    "vesta.annotation.v1.SubmissionService.CreateSubmission": ANNOTATORS,
    "vesta.annotation.v1.SubmissionService.GetSubmission": READERS,
    "vesta.annotation.v1.SubmissionService.ListSubmissions": READERS,
    "vesta.annotation.v1.TaskService.BatchCreateTasks": ENGINEERS,
    "vesta.annotation.v1.TaskService.GetTask": READERS,
    "vesta.annotation.v1.TaskService.ListTasks": READERS,
    "vesta.annotation.v1.TaskService.LeaseTasks": ANNOTATORS,
    "vesta.annotation.v1.TaskService.RenewLease": ANNOTATORS,
    "vesta.annotation.v1.TaskService.ReleaseTask": ANNOTATORS,
    "vesta.annotation.v1.TaskService.CancelTask": ENGINEERS,
    "vesta.conductor.v1.LoopService.CreateLoop": ENGINEERS,
    "vesta.conductor.v1.LoopService.GetLoop": READERS,
    "vesta.conductor.v1.LoopService.ListLoops": READERS,
    "vesta.conductor.v1.LoopService.UpdateLoop": ENGINEERS,
    "vesta.conductor.v1.LoopService.DeleteLoop": ENGINEERS,
    "vesta.conductor.v1.LoopService.ListDecisions": READERS,
    # Projects isolate tenants, so only the platform owner creates and deletes them. A member's list contains only its own project.
    "vesta.conductor.v1.ProjectService.CreateProject": PLATFORM_OWNER,
    "vesta.conductor.v1.ProjectService.DeleteProject": PLATFORM_OWNER,
    "vesta.conductor.v1.ProjectService.GetProject": READERS,
    "vesta.conductor.v1.ProjectService.ListProjects": ANY_MEMBER,
    "vesta.conductor.v1.ProjectService.UpdateProject": OWNERS,
    # Internal: media that other services ingest.
    "vesta.connection.v1.MediaService.IngestMedia": NOBODY,
    "vesta.connection.v1.SourceService.CreateSource": ENGINEERS,
    "vesta.connection.v1.SourceService.GetSource": READERS,
    "vesta.connection.v1.SourceService.ListSources": READERS,
    "vesta.connection.v1.SourceService.UpdateSource": ENGINEERS,
    "vesta.connection.v1.SourceService.DeleteSource": ENGINEERS,
    "vesta.connection.v1.SourceService.UploadItem": ENGINEERS,
    "vesta.connection.v1.SyncService.CreateSync": ENGINEERS,
    "vesta.connection.v1.SyncService.GetSync": READERS,
    "vesta.connection.v1.SyncService.ListSyncs": READERS,
    "vesta.connection.v1.SyncService.CancelSync": ENGINEERS,
    "vesta.datasets.v1.ArchiveService.UploadArchive": ENGINEERS,
    "vesta.datasets.v1.ArchiveService.DownloadArchive": READERS,
    "vesta.datasets.v1.ArchiveService.GetOperation": READERS,
    "vesta.datasets.v1.DatasetService.CreateDataset": ENGINEERS,
    "vesta.datasets.v1.DatasetService.GetDataset": READERS,
    "vesta.datasets.v1.DatasetService.ListDatasets": READERS,
    "vesta.datasets.v1.DatasetService.UpdateDataset": ENGINEERS,
    "vesta.datasets.v1.DatasetService.DeleteDataset": ENGINEERS,
    "vesta.datasets.v1.DatasetService.ImportDataset": ENGINEERS,
    "vesta.datasets.v1.DatasetService.ExportDataset": ENGINEERS,
    # Labels written directly count as accepted without review. Annotators answer tasks instead.
    "vesta.datasets.v1.ItemService.BatchAnnotateItems": ENGINEERS,
    "vesta.datasets.v1.ItemService.BatchCreateItems": ENGINEERS,
    "vesta.datasets.v1.ItemService.BatchGetItems": READERS,
    "vesta.datasets.v1.ItemService.GetItem": READERS,
    "vesta.datasets.v1.ItemService.ListItems": READERS,
    "vesta.datasets.v1.ItemService.UpdateItem": ENGINEERS,
    "vesta.datasets.v1.ItemService.DeleteItem": ENGINEERS,
    "vesta.datasets.v1.ItemService.DownloadItem": READERS,
    # Annotators' answers measure models, so annotators must not see predictions; the datasets service omits scores for them.
    "vesta.datasets.v1.ItemService.SearchItems": PREDICTION_READERS,
    "vesta.datasets.v1.ItemService.SelectItems": ENGINEERS,
    "vesta.datasets.v1.SnapshotService.CreateSnapshot": ENGINEERS,
    "vesta.datasets.v1.SnapshotService.GetSnapshot": READERS,
    "vesta.datasets.v1.SnapshotService.ListSnapshots": READERS,
    "vesta.datasets.v1.SnapshotService.DiffSnapshots": READERS,
    "vesta.datasets.v1.TaxonomyService.CreateTaxonomy": ENGINEERS,
    "vesta.datasets.v1.TaxonomyService.GetTaxonomy": READERS,
    "vesta.datasets.v1.TaxonomyService.ListTaxonomies": READERS,
    "vesta.datasets.v1.TaxonomyService.UpdateTaxonomy": ENGINEERS,
    "vesta.datasets.v1.TaxonomyService.DeleteTaxonomy": ENGINEERS,
    "vesta.gateway.v1.AuditService.ListAuditEntries": OWNERS,
    "vesta.gateway.v1.AuditService.ListPlatformAuditEntries": PLATFORM_OWNER,
    # All members of a project may see who is in it. Only owners manage keys and roles.
    "vesta.gateway.v1.ApiKeyService.CreateApiKey": OWNERS,
    "vesta.gateway.v1.ApiKeyService.GetApiKey": OWNERS,
    "vesta.gateway.v1.ApiKeyService.ListApiKeys": OWNERS,
    "vesta.gateway.v1.ApiKeyService.DeleteApiKey": OWNERS,
    "vesta.gateway.v1.ApiKeyService.GetIdentity": ANY_MEMBER,
    "vesta.gateway.v1.EventService.WatchEvents": READERS,
    "vesta.gateway.v1.MemberService.CreateMember": OWNERS,
    "vesta.gateway.v1.MemberService.GetMember": READERS,
    "vesta.gateway.v1.MemberService.ListMembers": READERS,
    "vesta.gateway.v1.MemberService.UpdateMember": OWNERS,
    "vesta.gateway.v1.MemberService.DeleteMember": OWNERS,
    "vesta.pipelining.v1.ObservationService.GetObservation": PREDICTION_READERS,
    "vesta.pipelining.v1.ObservationService.ListObservations": PREDICTION_READERS,
    "vesta.pipelining.v1.PipelineService.CreatePipeline": ENGINEERS,
    "vesta.pipelining.v1.PipelineService.GetPipeline": READERS,
    "vesta.pipelining.v1.PipelineService.ListPipelines": READERS,
    "vesta.pipelining.v1.PipelineService.UpdatePipeline": ENGINEERS,
    "vesta.pipelining.v1.PipelineService.DeletePipeline": ENGINEERS,
    "vesta.pipelining.v1.StreamService.CreateStream": ENGINEERS,
    "vesta.pipelining.v1.StreamService.GetStream": READERS,
    "vesta.pipelining.v1.StreamService.ListStreams": READERS,
    "vesta.pipelining.v1.StreamService.UpdateStream": ENGINEERS,
    "vesta.pipelining.v1.StreamService.DeleteStream": ENGINEERS,
    "vesta.serving.v1.DeploymentService.CreateDeployment": ENGINEERS,
    "vesta.serving.v1.DeploymentService.GetDeployment": READERS,
    "vesta.serving.v1.DeploymentService.ListDeployments": READERS,
    "vesta.serving.v1.DeploymentService.UpdateDeployment": ENGINEERS,
    "vesta.serving.v1.DeploymentService.DeleteDeployment": ENGINEERS,
    "vesta.serving.v1.DeploymentService.RollbackDeployment": ENGINEERS,
    # An application that only requests predictions needs no right to change anything.
    "vesta.serving.v1.DeploymentService.Predict": PREDICTION_READERS,
    "vesta.serving.v1.PredictionService.GetPrediction": PREDICTION_READERS,
    "vesta.serving.v1.PredictionService.ListPredictions": PREDICTION_READERS,
    "vesta.training.v1.ModelService.GetModel": READERS,
    "vesta.training.v1.ModelService.ListModels": READERS,
    "vesta.training.v1.ModelService.UpdateModel": ENGINEERS,
    "vesta.training.v1.ModelService.DeleteModel": ENGINEERS,
    "vesta.training.v1.ModelService.GetModelVersion": READERS,
    "vesta.training.v1.ModelService.ListModelVersions": READERS,
    "vesta.training.v1.ModelService.DeleteModelVersion": ENGINEERS,
    # A model file contains the value of the company's labels.
    "vesta.training.v1.ModelService.DownloadModelVersion": ENGINEERS,
    "vesta.training.v1.PretrainedDetectorService.ImportPretrainedDetector": ENGINEERS,
    "vesta.training.v1.PretrainedDetectorService.GetPretrainedDetector": READERS,
    "vesta.training.v1.PretrainedDetectorService.ListPretrainedDetectors": READERS,
    "vesta.training.v1.PretrainedDetectorService.DeletePretrainedDetector": ENGINEERS,
    "vesta.training.v1.RecipeService.CreateRecipe": ENGINEERS,
    "vesta.training.v1.RecipeService.GetRecipe": READERS,
    "vesta.training.v1.RecipeService.ListRecipes": READERS,
    "vesta.training.v1.RecipeService.UpdateRecipe": ENGINEERS,
    "vesta.training.v1.RecipeService.DeleteRecipe": ENGINEERS,
    "vesta.training.v1.StudyService.CreateStudy": ENGINEERS,
    "vesta.training.v1.StudyService.GetStudy": READERS,
    "vesta.training.v1.StudyService.ListStudies": READERS,
    "vesta.training.v1.StudyService.CancelStudy": ENGINEERS,
    "vesta.training.v1.StudyService.DeleteStudy": ENGINEERS,
    "vesta.training.v1.TrainingRunService.CreateTrainingRun": ENGINEERS,
    "vesta.training.v1.TrainingRunService.GetTrainingRun": READERS,
    "vesta.training.v1.TrainingRunService.ListTrainingRuns": READERS,
    "vesta.training.v1.TrainingRunService.DeleteTrainingRun": ENGINEERS,
    "vesta.training.v1.TrainingRunService.CancelTrainingRun": ENGINEERS,
}


def check_table(rpcs: Iterable[Rpc], rights: Mapping[str, Right] = RIGHTS) -> None:
    """Checks that the table has exactly the RPCs of the contracts, and that a role can be determined where it is needed.

    Raises:
        ValueError: the message lists the missing and the superfluous RPCs.
    """
    by_name = {rpc.full_name: rpc for rpc in rpcs}
    problems = [f"{name} has no access rule" for name in by_name.keys() - rights.keys()]
    problems += [f"{name} is not an RPC" for name in rights.keys() - by_name.keys()]
    problems += [
        f"{name} has an access rule for roles, but its requests have no project"
        for name, rpc in by_name.items()
        if rights.get(name) in ROLES and not rpc.scope
    ]
    if problems:
        raise ValueError(f"the access rules are invalid: {'; '.join(sorted(problems))}")


def authorize(caller: Caller, rpc: Rpc, request: Message, rights: Mapping[str, Right] = RIGHTS) -> str:
    """Checks that the caller may make a request. Returns the name that the caller acts as, such as `projects/acme/members/ada`.

    The error is the same whether the resource exists or not (AIP-211).

    Raises:
        PermissionDenied: the caller's role is not sufficient, or the request refers to a resource of another project.
        InvalidArgument: the request does not specify a project, or contains a malformed resource name.
    """
    right = rights[rpc.full_name]
    if right is NOBODY or (right is PLATFORM_OWNER and not caller.is_platform_owner):
        raise PermissionDenied(
            f"{rpc.descriptor.name} is restricted to: {right.value}; use another key",
            reason="ROLE_DENIED",
            metadata={"rpc": rpc.full_name},
        )
    named = references_in(request)
    check_references(named)
    if right in {PLATFORM_OWNER, ANY_MEMBER}:
        return caller.acting_in("")
    project = project_of_request(rpc, request)
    _check_one_project(caller, project, {project} | projects_of(named))
    if caller.role not in ROLES[right]:
        raise PermissionDenied(
            f"{rpc.descriptor.name} requires one of the roles {right.value}, but the role of this "
            f"key is {role_word(caller.role)}; ask an owner of the project",
            reason="ROLE_DENIED",
            metadata={"rpc": rpc.full_name, "role": role_word(caller.role)},
        )
    return caller.acting_in(project)


def authorize_more(caller: Caller, project: str, message: Message) -> None:
    """Checks a later message of a request stream, which may omit the fields of the first message.

    Raises:
        PermissionDenied: the message refers to a resource of another project.
        InvalidArgument: the message contains a malformed resource name.
    """
    named = references_in(message)
    check_references(named)
    _check_one_project(caller, project, projects_of(named))


def project_of_request(rpc: Rpc, request: Message) -> str:
    """Returns the project of a request.

    Raises:
        InvalidArgument: the scope field is not a resource name in a project.
    """
    name = str(reduce(getattr, rpc.scope.split("."), request))
    parts = name.split("/")
    if len(parts) < 2 or parts[0] != "projects" or not parts[1]:
        raise InvalidArgument(
            f"{rpc.scope} must be a name that starts with projects/, not {name[:100]!r}",
            reason="PROJECT_UNKNOWN",
            violations=[Violation(rpc.scope, "must be a name that starts with projects/")],
        )
    check_name(name, rpc.scope)
    return f"projects/{parts[1]}"


def _check_one_project(caller: Caller, project: str, named: set[str]) -> None:
    """Checks that all names are in one project: the caller's own, or, for the platform owner, the project of the request."""
    allowed = caller.project or project
    foreign = sorted(named - {allowed})
    if foreign:
        raise PermissionDenied(
            f"{foreign[0][:100]!r} is not in {allowed}, the project of this request",
            reason="PROJECT_DENIED",
            metadata={"project": allowed},
        )
