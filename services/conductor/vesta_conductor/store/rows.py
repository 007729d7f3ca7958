"""Conversion of rows to messages that several modules of the store need."""

from vesta_common.leases import Row
from vesta_common.messages import set_times
from vesta_contracts.conductor.v1 import Project


def project_of(row: Row) -> Project:
    """Returns the Project of a row."""
    project = Project(
        name=row["name"],
        display_name=row["display_name"],
        state=Project.State.Value(row["state"]),
        message=row["message"],
    )
    set_times(project, row, "create_time", "update_time", "delete_time")
    return project
