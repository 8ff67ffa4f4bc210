"""Install Detectron2 into the Python that runs this file.

    automix-transfer install-detectron2              # release 0.6 from the package index, without compiling
    automix-transfer install-detectron2 --upstream   # the main branch from its git repository, compiled

The name `detectron2` is not on the index; `pb1-detectron2` is: the Python tree of release 0.6 without its C++
sources, so that `pip install` of it fails at compiling. Here the tree becomes a plain wheel, with the
release's real requirements. Faster R-CNN needs nothing of the extension (RoIAlign and NMS are torchvision's);
`automix_transfer.detection.compatibility` supplies what is missing at run time. Does nothing where Detectron2
is installed already. Uses the standard library only, since it runs before torch can be imported.
--upstream needs git and a compiler.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

NAME, VERSION = "pb1-detectron2", "0.6"
# pip runs the sdist's setup.py, so the file is pinned
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
UPSTREAM = "git+https://github.com/facebookresearch/detectron2.git"

# What the release needs at run time. It also declares black==21.4b2, future and pydot, which nothing here
# uses.
REQUIREMENTS = (
    "Pillow>=7.1 matplotlib pycocotools>=2.0.2 termcolor>=1.1 yacs>=0.1.8 tabulate cloudpickle tqdm>4.29.0 "
    "tensorboard fvcore>=0.1.5,<0.1.6 iopath>=0.1.7,<0.1.10 omegaconf>=2.1,<2.4 hydra-core>=1.1"
).split()
METADATA = f"""Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
License: Apache-2.0
Summary: Detectron2 release 0.6, Python tree only (no compiled extension)
Requires-Python: >=3.7
"""
WHEEL = b"Wheel-Version: 1.0\nGenerator: install_detectron2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# Source folder -> package, as in the release's setup.py.
PROJECTS = {
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="automix-transfer install-detectron2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--upstream", action="store_true", help="build the main branch from its git repository instead")
    add("--force", action="store_true", help="install even where Detectron2 is installed already")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("detectron2") is not None and not options.force and not options.upstream:
        print("detectron2 is installed already (--force installs it again)")
        return 0
    for needed in ("torch", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            print(f"error: {needed} is not installed in {sys.prefix}; pip install {needed}", file=sys.stderr)
            return 2
    try:
        if options.upstream:
            newer = "--force-reinstall" if options.force else "--upgrade"
            pip("install", "--no-build-isolation", newer, UPSTREAM)
        else:
            with tempfile.TemporaryDirectory() as folder:
                wheel = build_wheel(download(Path(folder)), Path(folder))
                again = ["--force-reinstall", "--no-deps"] if options.force else []
                pip("install", *again, *constraints(), str(wheel))
        shows = "import detectron2; print('detectron2', detectron2.__version__, 'is installed')"
        subprocess.run([sys.executable, "-P", "-c", shows], check=True)
    except subprocess.CalledProcessError as error:
        step = " ".join(map(str, error.cmd[3:6]))
        print(f"error: installing Detectron2 failed at `{step}`; the lines above say why", file=sys.stderr)
        return 2
    return 0


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-P", "-m", "pip", arguments[0], "--disable-pip-version-check", *arguments[1:]],
        check=True,
    )


def constraints() -> list[str]:
    """The tested versions of a checkout, where they exist for this Python; a wheel has ranges only."""
    file = Path(__file__).resolve().parents[2] / "constraints.txt"
    return ["-c", str(file)] if file.is_file() else []


def download(folder: Path) -> Path:
    """The release's source archive from the package index, its hash checked by pip before anything in it
    runs."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n")
    # no build isolation: the archive's metadata imports torch, which would be downloaded again
    options = "--quiet --no-deps --no-binary :all: --no-build-isolation --require-hashes".split()
    pip("download", *options, "--dest", str(folder), "-r", str(requirement))
    return next(folder.glob("*.tar.gz"))


def build_wheel(archive: Path, folder: Path) -> Path:
    """A pure-Python wheel named detectron2 from the archive's Python tree and model-zoo configs; nothing is
    unpacked to disk."""
    info = f"detectron2-{VERSION}.dist-info"
    files: dict[str, bytes] = {}
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            target = wheel_path(member.name, info)
            if target and member.isfile():
                stream = source.extractfile(member)
                assert stream is not None  # a regular file
                files[target] = stream.read()
    if "detectron2/__init__.py" not in files or "detectron2/modeling/__init__.py" not in files:
        raise SystemExit(
            f"error: {archive.name} does not hold the Python tree of Detectron2; delete pip's cache and run "
            "again"
        )
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIREMENTS)
    files |= {f"{info}/WHEEL": WHEEL, f"{info}/METADATA": (METADATA + needs).encode()}
    record = [f"{path},sha256={digest(data)},{len(data)}\n" for path, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target_file:
        for path, data in files.items():
            target_file.writestr(path, data)
    return wheel


def wheel_path(member: str, info: str) -> str | None:
    """Where a file of the archive goes in the wheel; None: it is left out (the extension's sources, tools,
    what would leave the folder)."""
    parts = PurePosixPath(member).parts[1:]  # without "pb1-detectron2-0.6/"
    if not parts or ".." in parts:
        return None
    path = "/".join(parts)
    if path == "LICENSE":
        return f"{info}/LICENSE"
    if parts[0] == "detectron2" and path.endswith((".py", ".yaml")):
        return path
    for source, package in PROJECTS.items():
        if path.startswith(source + "/") and path.endswith(".py"):
            return package + path[len(source) :]
    return None


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
