"""What went into a decoder against what came out of it: which pictures were lost, how far damage spreads,
and where time has no frames.

Knows nothing about decoders: it is told the times of packets and pictures.

A damaged picture affects every later one that is built on it, and decoders flag only the first: from damage to the next
key frame all pictures count as damaged. Damage that happens to leave valid data goes unnoticed by any decoder.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict

from .media import Frame, Gap, SourceEnd

# How many packets may lie between an old picture and a newer one that a decoder hands out before it.
REMEMBERED = 4096
# A gap is longer than both; damage counts as beside it up to so many seconds before.
LEAST_GAP_S, LEAST_GAP_FRAMES = 1.0, 10
BESIDE_S = 0.5


class DecoderLedger:
    """The account of one decoder.

    Args:
        one_picture_a_packet: whether each packet should give one picture, so that one that never comes out is lost. If
            not, only the packets that the decoder refuses are known to be lost.
    """

    def __init__(self, *, one_picture_a_packet: bool) -> None:
        # Packets; damaged packets; and damage that was seen, without pictures that are merely built on damaged ones.
        self.packets = self.damaged = self.hurt = 0
        self._exact = one_picture_a_packet
        self._lost = self._refused = 0
        self._waiting: list[int] = []
        self._inside: Counter[int] = Counter()
        self._suspect: set[int] = set()
        # Counted as lost, though a decoder that lost its order may still give one of these.
        self._given_up: OrderedDict[int, None] = OrderedDict()
        self._shadow = False
        self._order: OrderedDict[int, int] = OrderedDict()

    @property
    def failed(self) -> int:
        """Pictures that never came out, so far."""
        return self._lost if self._exact else self._refused

    def put(self, pts: int | None, *, discard: bool = False, corrupt: bool = False) -> None:
        """Note a packet that goes in; `discard` ones are not to be shown, `corrupt` ones were damaged on their way."""
        self.packets += 1
        if corrupt:
            self.damaged += 1
        if pts is None:
            self._exact = False
        elif not discard:
            # Where a clock restarts, a time comes twice: it no longer counts as given up, and its place in the order
            # is that of the picture still inside, if there is one.
            self._given_up.pop(pts, None)
            if pts not in self._inside:
                self._order[pts] = self.packets
                self._order.move_to_end(pts)
            if len(self._order) > REMEMBERED:
                self._order.popitem(last=False)
            heapq.heappush(self._waiting, pts)
            self._inside[pts] += 1
            if corrupt:
                self._suspect.add(pts)

    def refuse(self) -> None:
        """Note that the decoder raised an error over a packet."""
        self.damaged += 1
        self.hurt += 1
        self._refused += 1
        self._shadow = True

    def take(self, pts: int | None, *, key: bool, corrupt: bool, field_coded: bool = False) -> bool:
        """Note a picture that comes out, in presentation order; returns whether it is damaged."""
        if pts is None or field_coded:
            # The two fields of a picture may come in packets of their own.
            self._exact = False
        else:
            self._lost += self._pass(pts)
        if key:
            self._shadow = False
        if pts in self._suspect:
            self._suspect.remove(pts)
            corrupt = True
        self.hurt += corrupt
        self._shadow |= corrupt
        return self._shadow

    def went_in_before(self, pts: int, other: int | None) -> bool:
        """Whether a picture went into the decoder before another one; False if that is no longer known."""
        place, others = self._order.get(pts), self._order.get(other) if other is not None else None
        return place is not None and others is not None and place < others

    def close(self) -> None:
        """Note that the decoder has given all it had: pictures still awaited are lost."""
        self._lost += len(self._waiting)
        self._waiting = []
        self._inside.clear()

    def _pass(self, pts: int) -> int:
        """How many pictures should have come out before `pts` and did not; -1 if `pts` itself had been given up."""
        if pts in self._given_up:
            del self._given_up[pts]
            return -1
        lost = 0
        while self._waiting and self._waiting[0] < pts:
            late = self._next()
            self._given_up[late] = None
            if len(self._given_up) > REMEMBERED:
                self._given_up.popitem(last=False)
            self._suspect.discard(late)
            lost += 1
        if self._waiting and self._waiting[0] == pts:
            self._next()
        self._shadow |= lost > 0
        return lost

    def _next(self) -> int:
        """Remove and return the earliest time that waits."""
        pts = heapq.heappop(self._waiting)
        self._inside[pts] -= 1
        if not self._inside[pts]:
            del self._inside[pts]
        return pts


class GapWatch:
    """The longest time without frames: each frame is compared with the one before it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hurt, self._hurt_at_s = 0, float("-inf")

    def note(self, before: Frame | None, frame: Frame, end: SourceEnd, *, hurt: int) -> None:
        """Keep the longest gap in `end`; `hurt` is how many packets and frames were damaged or lost so far."""
        beside = before is not None and before.time_s - self._hurt_at_s <= BESIDE_S
        damaged = beside or hurt > self._hurt
        if hurt > self._hurt:
            self._hurt, self._hurt_at_s = hurt, frame.time_s
        if before is None:
            return
        ends_s = before.time_s + float(before.duration * before.time_base)
        gap_s, frame_s = frame.time_s - ends_s, float(frame.duration * frame.time_base)
        if gap_s <= max(LEAST_GAP_S, LEAST_GAP_FRAMES * frame_s):
            return
        gap = Gap(gap_s, ends_s, self._name)
        end.gap = max(end.gap, gap)
        # The recorder may have paused; but where a packet was damaged, frames are missing.
        if damaged:
            end.missing = max(end.missing, gap)
