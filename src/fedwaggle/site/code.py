"""The code of an app as one hash, by which a server and its sites find that they differ."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from fedwaggle.errors import ConfigError

__all__ = ["CODE_KEY", "code_hash", "package_folder", "source_hashes"]

CODE_KEY = "app-code"
"""Where the server's hash lies in the config of a message."""


def source_hashes(package: Path) -> dict[str, str]:
    """Return the SHA-256 of each Python file in a package, by its path there.

    Parameters
    ----------
    package : Path
        The folder of the package; its sub-packages belong to it.
    """
    files = (path for path in package.rglob("*.py") if path.is_file())
    hashes = {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    return dict(sorted(hashes.items()))


def code_hash(package: Path) -> str:
    """Return one SHA-256 of a package: the names and contents of all its Python files."""
    digest = hashlib.sha256()
    for name, hashed in source_hashes(package).items():
        digest.update(f"{name}\0{hashed}\0".encode())
    return digest.hexdigest()


def package_folder(package: str) -> Path:
    """Return the folder of a package that has been imported.

    Parameters
    ----------
    package : str
        Its name, as ``__package__`` holds it in each of its modules.

    Raises
    ------
    ConfigError
        If there is no such package.
    """
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        raise ConfigError(
            [f"package: expected the app's package, as __package__ holds it, got {package!r}"]
        )
    return Path(file).parent
