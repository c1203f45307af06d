"""The views that a reader is asked for: its own, and others by name."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from flowagg_reader.core import Look
from flowagg_reader.hour import Seen
from flowagg_reader.lookup import JoinedLookups
from flowagg_reader.pace import Pace
from flowagg_reader.store import Store


@dataclass(slots=True, eq=False)
class View:
    """What a reader knows of one view: where its partitions are read, and how fast it applies records.

    own: it is the one that the reader is for, which is there though it has begun nothing yet.
    """

    name: str
    store: Store
    own: bool = False
    pace: Pace = field(default_factory=Pace)
    looks: JoinedLookups[Look, Mapping[int, Seen]] = field(init=False)

    def __post_init__(self) -> None:
        self.looks = JoinedLookups(lambda look: self.store.look(look.partitions, look.hour))


class Views:
    """The own view, and at most `limit` others: the least recently read are forgotten.

    What is forgotten costs the next read of that view a round trip, and nothing else: the requests in hand keep what
    they have. A name is remembered once a look has shown that there is such a view, so unknown names take no memory.
    """

    def __init__(self, own: str, store: Store, limit: int) -> None:
        self._own = View(own, store, own=True)
        self._limit = limit
        self._others: OrderedDict[str, View] = OrderedDict()

    def get(self, name: str | None) -> View:
        """The view of a name, None: the own one."""
        if name is None or name == self._own.name:
            return self._own
        known = self._others.get(name)
        if known is None:
            return View(name, self._own.store.of(name))
        self._others.move_to_end(name)
        return known

    def found(self, view: View) -> None:
        """A look has shown that the view is there."""
        if view.own or view.name in self._others:
            return
        self._others[view.name] = view
        if len(self._others) > self._limit:
            self._others.popitem(last=False)

    def gone(self, view: View) -> None:
        """A look has shown that the view is not there, or no longer."""
        if self._others.get(view.name) is view:
            del self._others[view.name]

    def __len__(self) -> int:
        return 1 + len(self._others)
