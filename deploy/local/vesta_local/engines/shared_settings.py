"""Settings of the engines that apply everywhere: files in deploy/, which the images for small clusters read too."""

from pathlib import Path

_DEPLOY = Path(__file__).resolve().parents[3]


def shared_lines(name: str, folder: str = "engines") -> list[str]:
    """Returns the settings in a file of deploy/, each `name=value`, without comments."""
    lines = (_DEPLOY / folder / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
