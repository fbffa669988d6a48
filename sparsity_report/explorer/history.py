"""What was shown before: undo, redo and the beginning of an explorer's states."""

from __future__ import annotations

from time import monotonic

from sparsity_report.explorer.control_state import State

# Seconds within which changes of one control are one step, such as those of a slider that is drawn.
_TOGETHER = 1.0
# Steps that are kept.
_STEPS = 200


class History:
    """States in the order they were shown.

    Examples
    --------
    >>> chosen = ("Dense", "", 0.0, "sparsity", "all", "group", "", False, (), None, {})
    >>> history = History(State(*chosen, against="Dense", curve="bytes", width=900))
    >>> history.note(history.first._replace(metric="total"), "metric")
    >>> history.back().metric, history.forward().metric
    ('sparsity', 'total')
    """

    def __init__(self, first: State) -> None:
        self.first = first
        self._states, self._at = [first], 0
        self._last: tuple[str, float] = ("", 0.0)

    @property
    def can_go(self) -> tuple[bool, bool]:
        """Whether there is something to undo, and to redo."""
        return self._at > 0, self._at + 1 < len(self._states)

    def note(self, state: State, name: str) -> None:
        """Keep a state that a change of the trait `name` led to."""
        now = monotonic()
        before, moved = self._last
        self._last = name, now
        if state == self._states[self._at]:
            return
        del self._states[self._at + 1 :]
        if name == before and now - moved < _TOGETHER and self._at:
            self._states[self._at] = state
            return
        self._states = [*self._states, state][-_STEPS:]
        self._at = len(self._states) - 1

    def back(self) -> State:
        """Return the state before, or the first that is kept."""
        self._at, self._last = max(0, self._at - 1), ("", 0.0)
        return self._states[self._at]

    def forward(self) -> State:
        """Return the state after, or the last."""
        self._at, self._last = min(len(self._states) - 1, self._at + 1), ("", 0.0)
        return self._states[self._at]
