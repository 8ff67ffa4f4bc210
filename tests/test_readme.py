"""The README's five lines run as they stand, and the files that it names exist."""

import re
from pathlib import Path

import torch

from automix_transfer.models import create_encoder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_printed():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    encoder = create_encoder("resnet10_32", 5)
    names = {
        "torch": torch,
        "encoder": encoder,
        "loader": [(torch.randn(4, 3, 32, 32), torch.arange(4)) for _ in range(2)],
    }
    exec(code, names)
    assert names["encoder_k"] is names["method"].encoder_k and torch.isfinite(names["loss"])
    assert names["encoder_k"](torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_named_files_exist():
    named = set(re.findall(r"(?:pretrain|detection|finegrained|wsol)/[\w/]+\.(?:py|yaml)", README))
    assert len(named) > 8
    named |= {"docs/methods.png", "CITATION.cff", "LICENSE"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_recipe_names_its_command():
    for folder in ("pretrain", "detection", "finegrained"):
        for file in sorted((ROOT / folder / "configs").glob("*.yaml")):
            if not file.name.startswith("Base-"):
                assert f"{folder}/" in file.read_text(encoding="utf-8").split("\n\n")[0], (
                    f"{file} does not name its command"
                )
