"""`python -m vesta_cluster up | down | status | load | build | kubectl | helm`: a real Kubernetes on this machine, for tests."""

import os
import sys
from pathlib import Path

import click

from vesta_cluster import binaries
from vesta_cluster.cluster import Cluster
from vesta_cluster.errors import ClusterError


@click.group()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: binaries.cache_folder() / "running",
    help="The folder of the cluster's state; `running` in the cache by default.",
)
@click.option("--api-only", is_flag=True, help="Only the API server, on loopback: no node, no root.")
@click.pass_context
def cli(context: click.Context, home: Path, *, api_only: bool) -> None:
    """A real Kubernetes on this machine."""
    context.obj = Cluster(home.resolve(), has_node=not api_only)


@cli.command()
@click.pass_obj
def up(cluster: Cluster) -> None:
    """Start all stopped processes, and wait until they are ready."""
    cluster.up(click.echo)
    click.echo(f"export KUBECONFIG={cluster.kubeconfig}\nexport PATH={binaries.folder()}:$PATH")


@cli.command()
@click.pass_obj
def down(cluster: Cluster) -> None:
    """Stop all processes and remove their state; the programs stay in the cache."""
    cluster.down()


@cli.command()
@click.pass_obj
def status(cluster: Cluster) -> None:
    """Show the processes of the cluster with their memory."""
    for name in cluster.processes.names():
        process = cluster.processes.find(name)
        state = f"{process.memory_info().rss / 2**20:6.0f} MiB" if process else "ended"
        click.echo(f"{name:20} {state:>10}  {cluster.processes.log(name)}")


@cli.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.pass_obj
def load(cluster: Cluster, archives: tuple[Path, ...]) -> None:
    """Import images onto the node: archives (of docker save, or buildah push docker-archive:) or folders of an OCI image layout."""
    click.echo("\n".join(cluster.load(archives)))


@cli.command()
@click.option("--checks", is_flag=True, help="Also kubeconform.")
@click.pass_obj
def build(cluster: Cluster, *, checks: bool) -> None:
    """Build the programs that are missing in the cache."""
    names = [*binaries.API, *binaries.CLIENTS, *(binaries.NODE if cluster.has_node else ())]
    click.echo(binaries.ensure([*names, *(binaries.CHECKS if checks else ())], click.echo))


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def kubectl(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    """Run kubectl on the cluster."""
    _become(cluster, "kubectl", arguments)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def helm(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    """Run helm on the cluster."""
    _become(cluster, "helm", arguments)


def _become(cluster: Cluster, name: str, arguments: tuple[str, ...]) -> None:
    program = binaries.ensure([name], click.echo) / name
    os.execve(program, [str(program), *arguments], {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)})  # noqa: S606


def main() -> None:
    """The entry point: prints errors as messages, without a traceback."""
    try:
        cli()
    except (ClusterError, OSError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
