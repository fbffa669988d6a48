"""The widget that the explorers of a study and of a pair share."""

import difflib
import sys
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

import anywidget
import traitlets
from IPython.display import display
from ipywidgets.widgets import widget as registry

from sparsity_report.errors import SparsityReportError
from sparsity_report.hooks import hooks
from sparsity_report.viewer.embed import embed
from sparsity_report.viewer.module import packed_module, style
from sparsity_report.words.sentences import say

# Most states that undo goes back to.
_STEPS = 200
# Traits of either explorer that have menus.
_MENUS = ("metric", "sort", "group", "policy", "variant", "byte_layout", "against", "modules",
          "grouping", "curve")  # fmt: skip


class RefusedValueError(SparsityReportError, traitlets.TraitError):
    """A value that a trait does not accept; traitlets restores the values before it."""


def in_marimo() -> bool:
    """Return whether the code runs in a marimo notebook."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


class BaseExplorer(anywidget.AnyWidget):
    """A viewer whose state a kernel shares.

    The widget connects to the page when it is displayed, and disconnects when its last view is
    closed. Its registry and its connection hold it weakly, so that an explorer without a name ends.

    Attributes
    ----------
    payload : bytes
        What the page shows.
    """

    _esm = packed_module()
    _css = style()
    payload = traitlets.Bytes().tag(sync=True)
    metric = traitlets.Unicode().tag(sync=True)
    search = traitlets.Unicode().tag(sync=True)
    sort = traitlets.Unicode().tag(sync=True)
    selection: Any = traitlets.Any(()).tag(sync=True)
    # Values of the traits that undo restores, as a named tuple.
    _state_type: Any
    # Common to all views of an explorer.
    key = traitlets.Unicode().tag(sync=True)
    # The widget that ipywidgets makes for sizes and margins would outlive the explorer.
    layout = traitlets.Any(None)

    def __init__(self, payload: bytes, **traits: Any) -> None:
        self._is_shown = in_marimo()
        # Messages of the page may run in another thread.
        self._thread = threading.local()
        self.states: list[Any] = []
        super().__init__(payload=payload, key=uuid4().hex, **traits)
        self.states, self._at = [self.state], 0

    # Subclasses define these.

    @property
    @abstractmethod
    def value(self) -> Any:
        """The study or the pair."""

    @abstractmethod
    def _choices(self, name: str) -> Sequence[str]:
        """Return the values that the menu of a trait offers."""

    @property
    @abstractmethod
    def _module_names(self) -> Sequence[str]:
        """Names of the modules that can be selected."""

    @abstractmethod
    def _page_payload(self) -> bytes:
        """Return a payload that starts with the state in view, for a page without a kernel."""

    def _restored(self) -> None:
        """Follow a change of all traits by undo."""

    def _committed(self, names: Sequence[str]) -> None:  # noqa: ARG002
        """Follow a change of some traits that the page has sent."""
        self._note()

    def _heard(self, message: dict[str, Any]) -> None:
        """Answer a message of the page that is not common to all explorers."""

    # Both share these.

    @property
    def state(self) -> Any:
        """Values of the traits that undo restores.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> explorer = sr.explore(sr.compare(sr.csr(pruning)))
        >>> explorer.state.sparsity, explorer.state.byte_layout
        (0.3, 'csr')
        """
        return self._state_type._make(getattr(self, name) for name in self._state_type._fields)

    def undo(self) -> None:
        """Undo the last change.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.search = "fc1"
        >>> explorer.undo()
        >>> explorer.search
        ''
        """
        self._go(self._at - 1)

    def redo(self) -> None:
        """Take back the last :meth:`undo`.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.search = "fc1"
        >>> explorer.undo()
        >>> explorer.redo()
        >>> explorer.search
        'fc1'
        """
        self._go(self._at + 1)

    def reset(self) -> None:
        """Show the first state again.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.search, explorer.sort = "fc1", "-sparsity"
        >>> explorer.reset()
        >>> explorer.search, explorer.sort
        ('', '')
        """
        self._restore(self.states[0])
        self._note()

    def _go(self, place: int) -> None:
        if 0 <= place < len(self.states):
            self._at = place
            self._restore(self.states[place])

    def _restore(self, state: Any) -> None:
        with self._quietly():
            for name, value in state._asdict().items():
                setattr(self, name, value)
            self._restored()

    def _note(self) -> None:
        """Append the state to those that undo goes back to."""
        if self.states and self.state != self.states[self._at]:
            self.states = [*self.states[: self._at + 1], self.state][-_STEPS:]
            self._at = len(self.states) - 1

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set several traits, sent to the page together, without what follows from each."""
        before, self._thread.is_quiet = self._is_quiet, True
        try:
            with self.hold_sync():
                yield
        finally:
            self._thread.is_quiet = before

    @property
    def _is_quiet(self) -> bool:
        """True while what follows from a change has to wait."""
        return getattr(self._thread, "is_quiet", False)

    @traitlets.validate(*_MENUS)
    def _check_choice(self, proposal: Any) -> Any:
        """Refuse values that the menu does not offer."""
        name, value = proposal["trait"].name, proposal["value"]
        require_choices(name, [value], self._choices(name))
        return value

    @traitlets.validate("detail", "module", "selection")
    def _check_modules(self, proposal: Any) -> Any:
        """Return the module, or the distinct modules of a selection; refuse unknown ones."""
        name, value = proposal["trait"].name, proposal["value"]
        modules = value if isinstance(value, list | tuple) else () if value is None else (value,)
        require_choices(name, modules, self._module_names, are_modules=True)
        return tuple(dict.fromkeys(modules)) if name == "selection" else value

    def open(self) -> None:
        """Connect to the page, once the explorer is displayed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.open()
        >>> explorer.comm is None  # nothing displays it
        True
        """
        if not self._is_shown or self.comm is not None:
            return
        super().open()
        if in_marimo():
            return
        handle, connection = weakref.WeakMethod(self._handle_msg), cast(Any, self.comm)
        connection.on_msg(lambda message: (answer := handle()) and answer(message))
        registry._instances[self.model_id] = weakref.proxy(self)

    def close(self) -> None:
        """Disconnect from the page; displaying the explorer again connects it.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.close()
        >>> explorer.comm is None
        True
        """
        super().close()
        # The base class makes a closed widget unable to show itself.
        self.__dict__.pop("_repr_mimebundle_", None)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Set traits that the page has changed; a refused one goes back with the reason.

        Parameters
        ----------
        sync_data : dict
            Values by the names of traits.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.set_state({"search": "fc1"})
        >>> explorer.search
        'fc1'
        """
        try:
            with self._quietly():
                super().set_state(sync_data)
        except traitlets.TraitError as error:
            self.send({"type": "error", "text": str(error)})
            self.send_state([name for name in sync_data if name in self.keys])
        else:
            self._committed([*sync_data])

    def _handle_custom_msg(self, content: dict[str, Any], buffers: Any) -> None:  # noqa: ARG002
        """Answer a message of the page."""
        if content.get("type") == "closed":
            self.close()
            return
        try:
            self._heard(content)
        except SparsityReportError as error:
            self.send({"type": "error", "text": str(error)})

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and after it the page without a kernel, which the widget hides."""
        for part in (self._widget_bundle(), self._page_bundle()):
            display(part, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the widget, and the viewer as HTML for a page without a kernel."""
        return self._widget_bundle() | ({} if in_marimo() else self._page_bundle())

    def _widget_bundle(self) -> dict[str, Any]:
        self._is_shown = True
        self.open()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        # An export without the widget shows nothing in its place, and does not warn.
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}

    def _page_bundle(self) -> dict[str, Any]:
        still = hooks.mime_bundle(self.value).get("text/html", "")
        text = "\n".join(hooks.sentences(self.value))
        page = embed(self._page_payload(), still, self.key)
        return {"text/html": page, "text/plain": text}


def require_choices(
    name: str, values: Sequence[Any], known: Sequence[str], *, are_modules: bool = False
) -> None:
    """Refuse values of a trait that are not among those known.

    Raises
    ------
    RefusedValueError
        A value is unknown. Of modules the message names the closest one only.
    """
    names = set(known)
    for value in values:
        if isinstance(value, str) and value in names:
            continue
        if are_modules:
            known = [*(difflib.get_close_matches(str(value), known, 1) or known[:1]), "…"]
        words = {"trait": name, "known": ", ".join(known), "value": repr(value)}
        raise RefusedValueError(say("explorer.choice_unknown", **words))
