"""Stops the job `caption` where a captioner fails or writes no captions, and warns where it writes one for all."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable

from captioning.captioners.base import CaptionerUnusable
from captioning.texts.text import clean

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 64
"""Pictures that fail one after the other before the job stops: then it is the captioner, not the pictures."""
WINDOW = 64
"""Pictures that are looked at: the last ones of a worker."""
REFUSED_SHARE = 0.9
"""Share of them without a caption at which the job stops: then it is how the captioner answers, not the pictures."""
ANSWERS_SHOWN = 3
LONGEST_ANSWER_SHOWN = 120
"""Characters."""


class Watch:
    """The last results of a worker."""

    def __init__(self, captioner: str, max_failed_share: float) -> None:
        """Begin with none. `captioner`: its name, for the message. `max_failed_share`: of pictures without a caption;
        from `REFUSED_SHARE` on nothing stops the job here."""
        self._captioner = captioner
        self._stops = max_failed_share < REFUSED_SHARE
        self._num_failures = 0
        self._has_warned = False
        self._last: deque[tuple[str | None, str | None]] = deque(maxlen=WINDOW)

    def failed(self, image_id: str, why: str) -> None:
        """Log that a picture has no answer. Raises CaptionerUnusable: many before it have none either."""
        log.warning("image %s: captioner %s failed: %s", image_id, self._captioner, why)
        self._num_failures += 1
        if self._num_failures >= FAILURES_IN_A_ROW:
            raise CaptionerUnusable(
                f"captioner {self._captioner} failed on {FAILURES_IN_A_ROW} pictures one after the other, "
                f"the last time with: {' '.join(why.split())}"
            )

    def answered(self) -> None:
        """Note that a picture has an answer, whatever it says."""
        self._num_failures = 0

    def see(self, results: Iterable[tuple[str | None, str | None]]) -> None:
        """Add some results: of each the reason why it is no caption (None where it is one), and the caption or refused
        answer. Logs once that all of the last ones are the same caption: some servers pass over pictures that their
        model cannot see. Raises CaptionerUnusable: nearly all of the last ones are no captions; the message shows some
        answers."""
        self._last.extend(results)
        if (
            not self._has_warned
            and len(self._last) == WINDOW
            and len(set(self._last)) == 1
            and self._last[0][0] is None
        ):
            self._has_warned = True
            log.warning(
                'captioner %s wrote one caption for its last %d pictures, "%s"; check that its model sees them',
                *(self._captioner, WINDOW, (self._last[0][1] or "")[:LONGEST_ANSWER_SHOWN]),
            )
        without = [(reason, answer) for reason, answer in self._last if reason is not None]
        if not self._stops or len(self._last) < WINDOW or len(without) < REFUSED_SHARE * WINDOW:
            return
        reasons = Counter(str(reason) for reason, _ in without).most_common()
        answers = list(dict.fromkeys(clean(answer) or "" for _, answer in without if answer))
        shown = "; ".join(f'"{answer[:LONGEST_ANSWER_SHOWN]}"' for answer in answers[:ANSWERS_SHOWN])
        raise CaptionerUnusable(
            f"captioner {self._captioner} wrote no caption, or thought before it, for {len(without)} of its last "
            f"{WINDOW} pictures "
            f"({', '.join(f'{count} {reason}' for reason, count in reasons)})"
            + (f", for example {shown}" if shown else "")
            + "; what it wrote is kept, and is not asked for again without --redo. Change the prompt or how the "
            "captioner answers (caption.endpoint.extra_body turns a server's thinking off); after a change at the "
            f"server itself add --redo caption; caption.max_failed_share={REFUSED_SHARE:g} goes on all the same"
        )
