"""Whether the package that the tests import was made from the sources beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILED = ("csrc/*/*.cpp", "csrc/*/*.h", "src/**/*.pyx", "CMakeLists.txt")
"""What the extension modules are compiled from; the build writes a digest of each into the package."""


def stale_files(root: Path, package: Path, compiled_from: Path) -> list[str]:
    """The files below ``root`` that a package differs from.

    Parameters
    ----------
    root:
        The repository, or the unpacked source distribution.
    package:
        The folder of the package that is imported.
    compiled_from:
        What the build has written: a SHA-256 and a path of each file that it compiled, one per line.
    """
    stale = []
    source = root / "src" / package.name
    if package.resolve() != source.resolve():  # a copy, not an editable installation
        pairs = {path: package / path.relative_to(source) for path in source.rglob("*") if _is_installed(path)}
        for folder in ("csrc/tdt", "csrc/cuda"):
            pairs |= {path: package / folder / path.name for path in (root / folder).iterdir()}
        gone = [source / path.relative_to(package) for path in package.rglob("*.py")]
        stale += [path for path in gone if not path.exists()]
        stale += [path for path, copy in pairs.items() if _digest(path) != _digest(copy)]
    lines = compiled_from.read_text().splitlines() if compiled_from.exists() else []
    compiled = {root / path: digest for digest, _, path in (line.partition("  ") for line in lines)}
    sources = {path for pattern in COMPILED for path in root.glob(pattern)} | compiled.keys()
    stale += [path for path in sources if _digest(path) != compiled.get(path)]
    return sorted({path.relative_to(root).as_posix() for path in stale})


def _is_installed(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def check_installed() -> str | None:
    """What is wrong and what to do; None if the tests see what lies in the repository."""
    import tdtdecode
    from tdtdecode.kernels import _cpu

    built = Path(_cpu.__file__).parents[1]
    stale = stale_files(ROOT, Path(tdtdecode.__file__).parent, built / "compiled_from.txt")
    if not stale:
        return None
    names = f"{', '.join(stale[:5])}{f' and {len(stale) - 5} more' if len(stale) > 5 else ''}"
    return (
        f"these tests would run another version of the package: the one installed in {built} was not made from {names} "
        "as it is here. Run pip install -e . (Python files can then be edited freely; after C++, Cython or "
        "CMakeLists.txt run it again)"
    )
