"""Where the rows of ``log.jsonl`` go besides (``train.loggers``): TensorBoard, and Weights & Biases (W&B).

A logger that fails is left out from there on, with one line; the training and its own files go on.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from automix_transfer.errors import UserError, few, first_line
from automix_transfer.io import read_json
from automix_transfer.progress import to_stderr
from automix_transfer.shown import clean
from automix_transfer.text_files import MOST_BYTES, read_text
from automix_transfer.training.settings import Experiment

PATIENCE = 60.0  #: seconds that W&B may go on uploading when a run ends; the rest is for ``wandb sync``
HERE = ("entity", "project")  #: what ``wandb/settings`` of the current folder may say
STATE = "automix_transfer.json"  #: in the folder wandb/ of a run: its id, and the last step that was sent


def check_loggers(names: Iterable[str]) -> None:
    """Refuse a logger of ``train.loggers`` whose package is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"train.loggers has {name}, which is not installed; install it with: pip install {name}"
                ", or leave it out"
            )


class Logger(Protocol):
    """What takes rows of values and pictures."""

    name: str

    def row(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Values of a ``kind`` (train, epoch) after ``step`` steps."""

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """An (H, W, 3) uint8 picture."""

    def close(self, finished: bool) -> None:
        """Write everything; ``finished``: the run is at its end, and is not going to be resumed."""


class Loggers:
    """The loggers of a run, none of which can end it.

    Args:
        step: steps that the run has behind it, 0 for a new one.
        rows: of ``log.jsonl`` up to there.
    """

    def __init__(self, experiment: Experiment, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self._open: list[Logger] = []
        for name in dict.fromkeys(experiment.train.loggers):
            with _survived(name):
                self._open.append(MAKERS[name](experiment, step, rows))

    def row(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        self._each(lambda logger: logger.row(kind, step, _numbers(values)))

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._each(lambda logger: logger.picture(name, step, picture))

    def close(self, finished: bool) -> None:
        for logger in self._open:
            with _survived(logger.name):
                logger.close(finished)

    def _each(self, work: Callable[[Logger], None]) -> None:
        for logger in list(self._open):
            failed = True
            with _survived(logger.name):
                work(logger)
                failed = False
            if failed:
                self._open.remove(logger)
                with suppress(Exception):
                    logger.close(False)


@contextmanager
def _survived(name: str) -> Iterator[None]:
    """What fails inside is one line: of a server, a disk, another library's version, whatever it is."""
    try:
        yield
    except Exception as error:
        to_stderr(
            f"note: {name} failed ({type(error).__name__}: {first_line(error)}) and gets nothing more; "
            "the training goes on, and log.csv and log.jsonl hold everything"
        )


class TensorBoard:
    """Event files in ``tensorboard/``; what lies behind ``step`` is purged."""

    name = "tensorboard"

    def __init__(self, experiment: Experiment, step: int, _: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(Path(experiment.output) / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=step + 1 if step else None)

    def row(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self, finished: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B that goes on, under one id, where the run was resumed; its files lie in ``wandb/``.

    What W&B lacks of ``rows`` is sent first, and what it has is not sent again, so it holds each step once
    and in order. A step's values are one row, which is sent when a later one comes, or at the run's end: a
    run that is stopped between them may add an epoch's figures when it is resumed.
    """

    name = "wandb"

    def __init__(self, experiment: Experiment, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        self._wandb, self._folder = wandb, Path(experiment.output) / "wandb"
        self._folder.mkdir(exist_ok=True)
        state = _state(self._folder / STATE) if step else {}
        self._id, self._sent = state.get("id") or secrets.token_hex(4), state.get("sent", 0)
        self._waiting: tuple[int, dict[str, Any]] = 0, {}
        self._run = self._start(asdict(experiment))
        self._keep_state()
        for row in rows:
            values = {key: value for key, value in row.items() if key != "time"}
            self.row(row["kind"], row["step"], _numbers(values))

    def _start(self, config: dict[str, Any]) -> Any:
        """Begin or resume; offline, where W&B cannot be reached or does not know who we are."""
        folder = self._folder.parent
        chosen = {} if os.environ.get("WANDB_PROJECT") else {"project": "automix_transfer"}
        refuse_settings_here()
        settings = {"console": "off", "silent": True, "disable_git": True, "finish_timeout": PATIENCE}

        def start(**more: Any) -> Any:
            return self._wandb.init(
                **chosen,
                dir=str(folder),
                id=self._id,
                name=folder.name,
                config=config,
                resume="allow",
                reinit="create_new",
                settings=self._wandb.Settings(**settings),
                **more,
            )

        try:
            return start()
        except Exception as error:
            to_stderr(
                f"note: W&B did not answer ({first_line(error)}); it logs offline, and `wandb sync "
                f"{self._folder}/offline-run-*` uploads it"
            )
            self._tear_down()  # or its process would say that the id is in use
            return start(mode="offline")

    def row(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        self._add(step, {f"{kind}/{name}": value for name, value in values.items()})

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._add(step, {name: self._wandb.Image(picture)})

    def _add(self, step: int, values: Mapping[str, Any]) -> None:
        if step <= self._sent:
            return
        if step != self._waiting[0]:
            self._send()
        self._waiting = step, {**self._waiting[1], **values}

    def _send(self) -> None:
        step, values = self._waiting
        if values:
            self._run.log(values, step=step)
            self._sent, self._waiting = step, (step, {})
            self._keep_state()

    def _keep_state(self) -> None:
        """Not flushed to the disk, as a run's own files are: after a power cut a step may be sent twice."""
        new = self._folder / f".{STATE}"
        new.write_text(f'{{"id": "{self._id}", "sent": {self._sent}}}\n')
        os.replace(new, self._folder / STATE)

    def close(self, finished: bool) -> None:
        """End W&B's run and its process, which must not keep ours from ending."""
        if finished:
            self._send()
        failure: list[Exception] = []

        def end() -> None:
            try:
                try:
                    self._run.finish(exit_code=0 if finished else 1)
                finally:
                    self._tear_down()
            except Exception as error:
                failure.append(error)

        ending = threading.Thread(target=end, name="wandb", daemon=True)
        ending.start()
        ending.join(PATIENCE + 15)
        if ending.is_alive():
            raise TimeoutError("it does not end")
        if failure:
            raise failure[0]

    def _tear_down(self) -> None:
        """End W&B's process, unless the program that called us has a run of its own in it."""
        if self._wandb.run is None:
            self._wandb.teardown()


def refuse_settings_here() -> None:
    """Raise a `UserError` where the current folder says more than whose the run is: W&B would send its key to
    the server that stands in ``wandb/settings``."""
    for file in (Path("wandb/settings"), Path(".wandb/settings")):
        content = ConfigParser(interpolation=None)
        try:
            content.read_string(read_text(file, MOST_BYTES) if file.is_file() else "")
        except ConfigParserError as error:
            raise UserError(f"{file} in the current folder cannot be read; remove it there") from error
        keys = [key for section in content.values() for key in section]
        odd = [key for key in keys if key not in HERE and not os.environ.get(f"WANDB_{key.upper()}")]
        if odd:
            raise UserError(
                f"{file} in the current folder sets {few(odd)}, which is taken from the environment only; "
                f"remove it there, or set WANDB_{clean(odd[0], 40).upper()}"
            )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if isinstance(value, float)}


def _state(file: Path) -> dict[str, Any]:
    """The id and the last step sent; nothing where the file is missing or no such file: W&B names a folder by
    the id."""
    found: Any = None
    with suppress(UserError):
        if file.is_file():
            found = read_json(file, 1000)
    fits = isinstance(found, dict) and type(found.get("sent")) is int and isinstance(found.get("id"), str)
    return found if fits and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found["id"]) else {}


MAKERS: dict[str, Callable[..., Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
