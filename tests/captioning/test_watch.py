from __future__ import annotations

import pytest

from captioning.asking import CaptionResult
from captioning.watch import WINDOW, Watch


def test_one_caption_for_all_pictures_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """As of a server whose model does not see the pictures."""
    watch = Watch("m", max_failed_share=0.05)
    watch.see([CaptionResult("A wide lake.").watched()] * (WINDOW - 1))
    watch.see([CaptionResult("A narrow lake.").watched()])
    assert not caplog.messages
    for _ in range(3):
        watch.see([CaptionResult("A lake.").watched()] * WINDOW)
    assert caplog.messages == [
        f'captioner m wrote one caption for its last {WINDOW} pictures, "A lake."; check that its model sees them'
    ]
