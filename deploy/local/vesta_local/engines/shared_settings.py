"""What the engines are told wherever they run: the files of deploy/, which the images of a small cluster read too."""

from pathlib import Path

_DEPLOY = Path(__file__).resolve().parents[3]


def shared_lines(name: str, folder: str = "engines") -> list[str]:
    """The settings in a file of deploy/, each `name=value`, without the comments."""
    lines = (_DEPLOY / folder / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
