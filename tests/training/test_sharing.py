"""Processes that measure images for the first of them: who gets which, and what all end with."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from automix_transfer import cli
from automix_transfer.data.loader import dealt_out
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import read_json
from automix_transfer.signals import Interrupted
from automix_transfer.training import sharing
from automix_transfer.training.distributed import World
from automix_transfer.training.sharing import Team
from tests.data import trees
from tests.evaluation.small_runs import write_images, write_run
from tests.training.processes import finish_ranks, start_ranks


def teams(size: int) -> list[Team]:
    """Processes of this one, connected."""
    pipes = {rank: Pipe() for rank in range(1, size)}
    hosts = {rank: f"host{rank}" for rank in range(size)}
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    first = Team(worlds[0], {rank: ours for rank, (ours, _) in pipes.items()}, hosts)
    return [first, *(Team(worlds[rank], {0: theirs}, hosts) for rank, (_, theirs) in pipes.items())]


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("images", [1, 8, 23])
def test_batches_are_dealt_out_whole_and_come_back_in_order(images: int) -> None:
    indices = list(range(images))
    whole = [indices[start : start + 4] for start in range(0, images, 4)]
    first, *others = teams(3)

    def batches(team: Team) -> Iterator[list[int]]:
        own = dealt_out(indices, 4, team.world.rank, team.world.size)
        yield from (own[start : start + 4] for start in range(0, len(own), 4))

    threads = [beside(lambda team=team: (team.in_order(batches(team)), team.leave())) for team in others]
    told: list[list[int]] = []
    assert first.in_order(batches(first), told.append) == whole
    assert sorted(told) == whole
    first.leave()
    for thread in threads:
        thread.join()


def test_what_the_first_has_all_get() -> None:
    first, second = teams(2)
    found: list[object] = []
    thread = beside(lambda: found.append(second.of_first(())))
    assert first.of_first(([1, 2], "x")) == ([1, 2], "x")
    thread.join()
    assert found == [([1, 2], "x")]


def _leaves(error: BaseException) -> Callable[[Team], object]:
    def work(team: Team) -> None:
        with suppress(SystemExit):
            team.leave(error)

    return work


@pytest.mark.parametrize(
    "work, raised, said",
    [
        (_leaves(UserError("cat.png does not decode")), UserError, "rank 1 on host1: cat.png"),
        (_leaves(ValueError("a bug")), UserError, "rank 1 on host1: ValueError: a bug"),
        (_leaves(Interrupted(signal.SIGTERM)), Interrupted, "untouched"),
        (_leaves(SystemExit(2)), UserError, "rank 1 on host1 ended"),
        (lambda team: team._to[0].close(), UserError, "rank 1 on host1 ended without a word"),
    ],
    ids=["bad input", "bug", "interrupted", "left", "died"],
)
def test_the_first_says_what_ended_another(
    work: Callable[[Team], object], raised: type[BaseException], said: str
) -> None:
    first, second = teams(2)
    second._to[0].send((0, (1, "a piece")))
    work(second)
    with pytest.raises(raised, match=said):
        list(first.pieces(["own"]))


def test_what_a_process_that_died_had_started_does_not_hide_it() -> None:
    first, second = teams(2)
    started = os.fork()
    if not started:
        signal.pause()
    try:
        second._to[0].close()
        with pytest.raises(UserError, match="rank 1 on host1 ended without a word"):
            list(first.pieces(["own"]))
    finally:
        os.kill(started, signal.SIGKILL)
        os.waitpid(started, 0)


def test_of_an_interruption_and_a_death_the_first_says_who_died() -> None:
    """As torchrun does it, which interrupts the others where one dies."""
    first, second, third = teams(3)
    third._to[0].close()
    _leaves(Interrupted(signal.SIGTERM))(second)
    with pytest.raises(UserError, match="rank 2 on host2 ended without a word"):
        first.leave(Interrupted(signal.SIGTERM))


def test_who_is_interrupted_does_not_wait_for_others_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LAST_WORDS", 0.05)
    first, second = teams(2)
    left, done = threading.Event(), threading.Event()

    def measure() -> None:
        for _ in range(1000):
            if left.wait(0.01):
                return
            second._to[0].send((sharing.PIECE, (1, "a piece")))
        done.set()

    thread = beside(measure)
    first.leave(Interrupted(signal.SIGINT))
    left.set()
    thread.join()
    assert not done.is_set()


def test_where_the_first_died_the_second_says_so_and_where_it_failed_nobody_does() -> None:
    for rank, raised in ((1, UserError), (2, SystemExit)):
        first, *others = teams(3)
        first._to[rank].close()
        with pytest.raises(raised, match="rank 0 on host0" if rank == 1 else "2"):
            others[rank - 1].leave(BrokenPipeError())
        first, *others = teams(3)
        first.leave(UserError("no room"))
        with pytest.raises(SystemExit):
            others[rank - 1].of_first(0)


# --- two processes ----------------------------------------------------------------------------------------


def _commands(words: list[list[str]], _resume: bool) -> None:
    for line in words:
        assert cli.main(line) == 0


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Commands on 21 images for each split, on which batches of four leave one over, and on a small CUB."""
    folder = tmp_path_factory.mktemp("shared")
    data, run = write_images(folder / "data", each=7), folder / "run"
    write_run(run, data, "vanilla")
    trees.cub(folder / "cub", images=10)
    (folder / "C").mkdir()
    np.save(folder / "C" / "labels.npy", np.arange(5 * 6) % 3)
    pixels = np.random.default_rng(0).integers(0, 256, (5 * 6, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "C" / "fog.npy", pixels)
    parts = ["--suite", "clean,calibration,confusion,shots,fgsm,pgd,corruption", "--pgd-steps", "2"]
    weights, small = str(run / "last.pt"), ["--batch-size", "4", "--device", "cpu"]
    released = ["--suite", "corruption", "--corrupted", str(folder / "C")]
    cub = ["--dataset", "cub", "--root", str(folder / "cub"), "--threshold-split", "train", "--examples", "0"]
    found = [
        ["localize", "--checkpoint", weights, *cub, "--image-size", "64", "--map-size", "32"],
        ["evaluate", "--run", str(run), *parts, "--corruptions", "gaussian_noise,frost"],
        ["evaluate", "--weights", weights, "--data", str(data / "val"), *released],
        ["probe", "--weights", weights, "--data", str(data), "--image-size", "32"],
    ]
    return [[*line, *small] for line in found]


def into(folder: Path, lines: list[list[str]]) -> list[list[str]]:
    return [[*line, "--output", str(folder / f"{number}.json")] for number, line in enumerate(lines)]


def _command(line: list[str], _resume: bool = False) -> None:
    assert cli.main(line) == 0


def _commands(lines: list[list[str]], _resume: bool = False) -> None:
    for line in lines:
        _command(line)


def timeless(file: Path) -> dict[str, Any]:
    """What was measured, without how long it took."""
    content = read_json(file)
    content.get("about", {}).pop("seconds", None)
    return {key: value for key, value in content.items() if key != "seconds"}


@pytest.mark.slow
def test_two_processes_have_the_figures_of_one(lines: list[list[str]], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _commands(into(one, lines))
    finish_ranks(start_ranks(into(two, lines), work=_commands))  # type: ignore[arg-type]
    for name in ("0.json", "1.json", "2.json", "3.json", "confusion.json"):
        assert timeless(one / name) == timeless(two / name), name
    for name in ("0.csv", "confusion.csv"):
        assert (one / name).read_text() == (two / name).read_text(), name
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}


def _kill_itself(line: list[str], _resume: bool) -> None:
    """The command, in which the rank of ``--dies`` kills itself after its first piece."""
    *line, dying = line
    pieces = Team.pieces

    def first_only(team: Team, own: Any) -> Any:
        def some() -> Iterator[Any]:
            yield next(iter(own))
            os.kill(os.getpid(), signal.SIGKILL)

        return pieces(team, some())

    if os.environ["RANK"] == dying:
        Team.pieces = first_only  # type: ignore[method-assign]
    sys.stderr = Path(line[-1]).with_name(f"rank{os.environ['RANK']}.txt").open("w")
    run_script(lambda: cli.main(line))


@pytest.mark.slow
@pytest.mark.parametrize("number, dying, codes", [(0, 1, (2, -9)), (1, 0, (-9, 2)), (3, 1, (2, -9))])
def test_a_process_that_dies_ends_all_with_one_sentence(
    lines: list[list[str]], tmp_path: Path, number: int, dying: int, codes: tuple[int, int]
) -> None:
    line = into(tmp_path, lines)[number]
    finish_ranks(start_ranks([*line, str(dying)], work=_kill_itself), codes)  # type: ignore[arg-type]
    said = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert not (tmp_path / f"{number}.json").exists()
    assert said[1 - dying][-1].startswith(f"error: rank {dying} on ")
    assert not [text for text in said[1 - dying][:-1] if "rror" in text or "Trace" in text]
    if number == 0:  # what it had measured is kept, for any number of processes
        assert (tmp_path / "0.partial").is_file()
        _command(line)
        _command([*line[:-1], str(tmp_path / "again" / "0.json")])
        assert timeless(tmp_path / "0.json") == timeless(tmp_path / "again" / "0.json")
