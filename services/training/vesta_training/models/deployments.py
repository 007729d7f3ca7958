"""Client of the serving service: lists the deployments of a project."""

from vesta_contracts.serving.v1 import Deployment, DeploymentServiceStub, ListDeploymentsRequest

PAGE_SIZE = 1000


class Deployments:
    """The deployments of the serving service."""

    def __init__(self, deployments: DeploymentServiceStub) -> None:
        self._deployments = deployments

    def of(self, project: str) -> list[Deployment]:
        """Lists all deployments of a project. Raises Unavailable if the serving service does not respond."""
        deployments: list[Deployment] = []
        request = ListDeploymentsRequest(parent=project, page_size=PAGE_SIZE)
        while True:
            page = self._deployments.ListDeployments(request)
            deployments += page.deployments
            if not page.next_page_token:
                return deployments
            request.page_token = page.next_page_token
