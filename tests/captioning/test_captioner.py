from __future__ import annotations

import typing

import pytest

from captioning.captioner import CAPTIONERS, make_captioner
from schemas.recipe import Caption


def test_every_captioner_of_the_recipe_can_be_made() -> None:
    (names,) = [typing.get_args(Caption.model_fields["captioner"].annotation)]
    assert set(CAPTIONERS) == set(names)
    for name in names:
        captioner = make_captioner(Caption(captioner=name))
        assert captioner.name == name
        assert captioner.batch_size >= 1


def test_an_unknown_captioner_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"caption.captioner: no captioner 'poet'; there are attributes"):
        make_captioner(Caption.model_construct(captioner="poet"))
