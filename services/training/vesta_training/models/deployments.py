"""Asks the serving service which versions a project's deployments use."""

from vesta_contracts.serving.v1 import Deployment, DeploymentServiceStub, ListDeploymentsRequest

PAGE_SIZE = 1000


class Deployments:
    """The deployments of the serving service."""

    def __init__(self, deployments: DeploymentServiceStub) -> None:
        self._deployments = deployments

    def of(self, project: str) -> list[Deployment]:
        """A project's deployments. Raises Unavailable where serving does not answer."""
        found: list[Deployment] = []
        request = ListDeploymentsRequest(parent=project, page_size=PAGE_SIZE)
        while True:
            page = self._deployments.ListDeployments(request)
            found += page.deployments
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
