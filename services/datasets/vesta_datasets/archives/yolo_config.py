"""The configuration of a YOLO archive: the names of the classes, and the places of the images of each split.

Ultralytics, Roboflow and FiftyOne write data.yaml. Darknet, and CVAT and Datumaro after it, write obj.data, which names the lists of the
classes and of the images. Label Studio and LabelImg write classes.txt, and Roboflow _darknet.labels: one class per line.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from vesta_datasets.archives.layout import UnreadableArchiveError, image_files, is_hidden

_CONFIG_BYTES_MAX: Final = 1024 * 1024
_CLASS_LISTS: Final = ("classes.txt", "_darknet.labels")


def find_config(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Returns the file with the names of the classes, and its content as that of data.yaml: the file nearest to the root.

    Raises:
        UnreadableArchiveError: data.yaml is not valid YAML; obj.data names a list of classes that the archive lacks.
    """
    return _find_yaml(root) or _find_darknet(root) or _find_class_list(root)


def resolved(root: Path, folder: Path, base: str, place: str) -> Path | None:
    """Returns the folder or file that a configuration names. It is often relative to a folder outside of the archive, which is removed.

    Args:
        folder: of the configuration.
        base: the folder that the configuration states for all places; may be empty.
    """
    inside = [part for part in Path(place).parts if part not in ("..", ".", "/")]
    base_inside = [part for part in Path(base).parts if part not in ("..", ".", "/")]
    starts = [folder.joinpath(*base_inside), folder, root.joinpath(*base_inside), root]
    candidates = [start.joinpath(*inside[skip:]) for skip in range(len(inside)) for start in starts]
    return next((path for path in candidates if path.exists() and path.resolve().is_relative_to(root.resolve())), None)


def rows_of(root: Path, image: Path) -> Path:
    """Returns the file of the rows of an image, which may not exist."""
    beside = image.with_suffix(".txt")
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        apart = root.joinpath(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        return apart if apart.is_file() or not beside.is_file() else beside
    return beside


def _find_yaml(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    for path in sorted(
        _files(root, ("*.yaml", "*.yml")), key=lambda path: (len(path.parts), path.stem != "data", path)
    ):
        try:
            content = yaml.load(path.read_bytes(), yaml.BaseLoader)  # noqa: S506 - the base loader creates texts, lists and dicts alone
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            if path.stem != "data":
                continue
            raise UnreadableArchiveError(f"{path.relative_to(root)} is not valid YAML: {error}") from error
        if isinstance(content, dict) and content.get("names"):
            return path, content
    return None


def _find_darknet(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    for path in sorted(_files(root, ("*.data",)), key=lambda path: (len(path.parts), path)):
        pairs = (line.partition("=") for line in path.read_text("utf-8", "replace").splitlines())
        content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
        if listed := content.get("names"):
            names = resolved(root, path.parent, "", listed)
            if names is None or not names.is_file():
                raise UnreadableArchiveError(
                    f"{path.relative_to(root)} names {listed}, which is not in the archive; add it"
                )
            return path, {**content, "names": _lines(names)}
    return None


def _find_class_list(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Returns a list of classes if an image has rows: other layouts have a file of this name too."""
    for path in sorted(_files(root, _CLASS_LISTS), key=lambda path: (len(path.parts), path)):
        if any(rows_of(root, image).is_file() for image in image_files(root)):
            return path, {"names": _lines(path)}
    return None


def _files(root: Path, patterns: Iterable[str]) -> Iterable[Path]:
    return (
        path
        for pattern in patterns
        for path in root.rglob(pattern)
        if path.is_file() and not is_hidden(path.relative_to(root)) and path.stat().st_size <= _CONFIG_BYTES_MAX
    )


def _lines(file: Path) -> list[str]:
    """Returns the stripped lines of a file, without the empty ones at its end."""
    return [line.strip() for line in file.read_text("utf-8", "replace").rstrip().splitlines()]
