"""Some of what ``tests/damage.py`` does in its long form: every kind of damage, to every file of every stage."""

from __future__ import annotations

import random

import pytest

from tests.damage import GOOD, KINDS, World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.made_in(tmp_path_factory.mktemp("damage"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unpublished", [False, True])
def test_what_is_damaged_is_noticed_and_made_again_by_the_same_command(
    world: World, kind: str, unpublished: bool
) -> None:
    dice = random.Random(f"{kind}{unpublished}")
    found = [world.try_damage(name, kind, dice, unpublished=unpublished) for name in dice.sample(world.files, 6)]
    assert [one for one in found if one.outcome not in GOOD] == []
    assert {one.outcome for one in found} != {"of no effect"}


def test_every_stage_writes_files_that_are_damaged(world: World) -> None:
    stages = {name.partition("/")[0] for name in world.files}
    assert stages == {"prepared", "embeddings", "models", "evaluation", "recommendations"}
