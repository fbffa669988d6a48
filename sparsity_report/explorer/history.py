"""History of an explorer's states, for undo, redo and reset."""

from time import monotonic

from sparsity_report.explorer.control_state import State

# Seconds within which changes of one control are one step, such as those of a slider.
_TOGETHER = 1.0
# Most steps.
_STEPS = 200


class History:
    """States in the order in which they were in view.

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
        """True if there is a step to undo, and a step to redo."""
        return self._at > 0, self._at + 1 < len(self._states)

    def note(self, state: State, name: str) -> None:
        """Append the state after a change of the trait `name`."""
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
        """Return the state before, or the first one."""
        self._at, self._last = max(0, self._at - 1), ("", 0.0)
        return self._states[self._at]

    def forward(self) -> State:
        """Return the state after, or the last one."""
        self._at, self._last = min(len(self._states) - 1, self._at + 1), ("", 0.0)
        return self._states[self._at]
