"""What differs between Detectron2's release 0.6, its main branch and today's packages: all of it is here.

The release was written for NumPy 1.20, Pillow 8 and a setuptools with ``pkg_resources``, and as installed by
``automix-transfer install-detectron2`` it lacks its compiled extension. `apply` supplies what is missing, and
only that: on the main branch with a built extension it changes nothing.

Where the two behave differently, the rest of this package calls what both have:

========================  ========================  =======================  ==========================
what                      release 0.6               main branch              here
========================  ========================  =======================  ==========================
optimizer in checkpoints  left out: a resumed run   ``trainer._trainer``     ``trainer._trainer`` with
                          loses its momentum                                 both (`engine`)
training loader's         made with the trainer     made when first used     finds its start when used
iterator                                                                     (`loader`)
order of samples          starts over on --resume   starts over              goes on (`loader`)
best checkpoint           forgotten on resume;      the same                 --resume goes on from the
                          last_checkpoint names it                           last (`checkpoints`)
reading of checkpoints    pickle                    pickle, unless told      tensors only
                                                    otherwise                (`io.load_torch`)
AMP's precision           float16                   a choice                 float16
``setup_logger`` twice    two handlers, unless its  the same                 handled in `trainer`
                          cache is told
========================  ========================  =======================  ==========================
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from automix_transfer.data.images import DETECTED_PIXELS, open_image, require_file
from automix_transfer.errors import UserError

INSTALL = "automix-transfer install-detectron2"
#: what today's torch says of Detectron2's own lines, once a process; its users can do nothing about it
_FOREIGN_WARNINGS = (
    (r"`torch\.jit\.script` is deprecated", FutureWarning),
    (
        r"torch\.meshgrid: in an upcoming release, it will be required to pass the indexing argument",
        UserWarning,
    ),
)
# removed in NumPy 1.24; 2.0 has bool again
_NUMPY_ALIASES = {"bool": bool, "int": int, "float": float, "object": object, "str": str}


def available() -> bool:
    """Is Detectron2 installed? Does not import it."""
    return importlib.util.find_spec("detectron2") is not None


def require() -> None:
    """`apply`, or a `UserError` that names the installer where there is no Detectron2."""
    if not available():
        raise UserError(f"Detectron2 is not installed in {sys.prefix}; run `{INSTALL}`")
    apply()


def has_extension() -> bool:
    """Does Detectron2 have its compiled extension (rotated and deformable operators)?"""
    return (
        not isinstance(sys.modules.get("detectron2._C"), _MissingExtension)
        and importlib.util.find_spec("detectron2._C") is not None
    )


def apply() -> None:
    """Make Detectron2 importable; calling it again does nothing."""
    import numpy
    import PIL.Image

    for message, category in _FOREIGN_WARNINGS:
        warnings.filterwarnings("ignore", message, category)
    for name, kind in _NUMPY_ALIASES.items():
        if name not in vars(numpy):
            setattr(numpy, name, kind)
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    if "detectron2._C" not in sys.modules and importlib.util.find_spec("detectron2._C") is None:
        import detectron2

        detectron2._C = sys.modules["detectron2._C"] = _MissingExtension("detectron2._C")
    if "detectron2.model_zoo" not in sys.modules:
        with _pkg_resources():
            import detectron2.model_zoo  # noqa: F401
    _read_our_formats_only()


def _read_our_formats_only() -> None:
    """Detectron2's reader of images opens regular files of `images.FORMATS`, and nothing else.

    Pillow alone would also open EPS, which starts Ghostscript, and wait for ever at a named pipe.
    """
    from detectron2.data import detection_utils as reader

    if isinstance(reader.Image, _OurFormats):
        return
    reader.Image, theirs = _OurFormats("PIL.Image"), reader.read_image

    def read_image(file_name: str, format: str | None = None) -> Any:
        require_file(file_name)
        return theirs(file_name, format)

    reader.read_image = read_image


class _OurFormats(ModuleType):
    """``PIL.Image`` with `open_image` in place of its ``open``, for images of at most `DETECTED_PIXELS`."""

    open = staticmethod(partial(open_image, most=DETECTED_PIXELS))

    def __getattr__(self, name: str) -> Any:
        import PIL.Image

        return getattr(PIL.Image, name)


class _MissingExtension(ModuleType):
    """Stands in for ``detectron2._C``: importable, and a clear error as soon as an operator is used."""

    def get_compiler_version(self) -> str:  # asked for by Detectron2's environment report
        return "none (no compiled extension)"

    def get_cuda_version(self) -> str:
        return "none (no compiled extension)"

    def has_cuda(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError(
            f"detectron2._C.{name} is in Detectron2's compiled extension, which this installation lacks "
            f"(rotated boxes and deformable convolutions need it); run `{INSTALL} --upstream` with a compiler"
        )


@contextmanager
def _pkg_resources():
    """A ``pkg_resources`` with the one function that Detectron2's model zoo calls while it is imported."""
    try:
        found = importlib.util.find_spec("pkg_resources") is not None
    except ValueError:
        found = False
    if found:  # setuptools has one
        yield
        return
    shim = ModuleType("pkg_resources")
    shim.resource_filename = _resource_filename  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = shim
    try:
        yield
    finally:
        # the model zoo keeps its reference; nobody else should take this for setuptools' module
        del sys.modules["pkg_resources"]


def _resource_filename(package: str, resource: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return os.path.join(next(iter(spec.submodule_search_locations)), resource)
