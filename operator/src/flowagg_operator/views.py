"""Several views on one log: how each is built and removed, when readers change over, and what status says. Pure.

The first view of the spec has the consumers that are scaled; each further one has a Deployment of its own. A view that
left the spec is kept in status until nothing is to be done about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from flowagg.view import Meta

from flowagg_operator.conditions import Verdict, shortened
from flowagg_operator.spec import Spec, View

State = Literal["Building", "Cloning", "Live", "Removing", "Failed"]
JobState = Literal["", "Active", "Complete", "Failed"]
JobKind = Literal["clone", "remove"]

READ_NOW: Final = "flowaggregator.io/read-now"
"""Annotation of a FlowAggregator: the name of the view that readers change over to whatever it lacks."""

_SHOWN: Final = 5
_MEND: Final = "docs/guides/repair.md#damagedview"


# The change of readers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether readers may go from the view `old` to `new`. verdict: why not, and what to do; good: they may."""

    old: str
    new: str
    verdict: Verdict

    @property
    def is_open(self) -> bool:
        """Whether they may."""
        return self.verdict.good


def gate(old: str, new: str, before: Mapping[int, Meta], after: Mapping[int, Meta]) -> Gate:
    """Judge by the partitions' metas. `before`, of the old view, must have been read before `after`, of the new one.

    A view's positions only grow. So if the new one was at or past what the old one had been at before, it has
    applied by now all that anybody could have read then.
    """
    others = [number for number, meta in before.items() if number in after and after[number].topic_id != meta.topic_id]
    if others:
        text = (
            f"readers go on with {old}: {new} counts in another topic (partition {_list(others)}). Where the topic was "
            f"made again on purpose, set the annotation {READ_NOW} to {new}"
        )
        return Gate(old, new, Verdict("False", "OtherTopic", text))
    lacking = [number for number, meta in before.items() if number in after and _lacks(after[number], meta)]
    if lacking:
        text = (
            f"readers go on with {old}: {new} lacks records that {old} has, since it began after the log's start or "
            f"the log lost them (partition {_list(lacking)}). Make {new} as a clone (source: Clone); or, where that is "
            f"wanted so, set the annotation {READ_NOW} to {new}"
        )
        return Gate(old, new, Verdict("False", "Incomplete", text))
    behind = {number: _behind(meta, after.get(number)) for number, meta in before.items()}
    behind = {number: records for number, records in behind.items() if records}
    if behind:
        most = sorted(behind, key=lambda number: (-behind[number], number))[:_SHOWN]
        shown = ", ".join(f"{number} by {behind[number]}" for number in most)
        more = f" and {len(behind) - len(most)} more" if len(behind) > len(most) else ""
        text = (
            f"readers go on with {old} until {new} has applied as much: it is behind by {sum(behind.values())} records "
            f"in {len(behind)} of {len(before)} partitions ({shown}{more}). Where {old} stands past the log's end, no "
            f"waiting mends that: set the annotation {READ_NOW} to {new}"
        )
        return Gate(old, new, Verdict("False", "CatchingUp", text))
    return Gate(old, new, Verdict("True", "Serving", f"{new} has applied all that {old} had"))


def gaps(meta: Meta) -> list[tuple[int, int]]:
    """The ranges of offsets that a partition of a view lacks: its end excluded, in order, those that touch as one.

    Raises ValueError where the meta's text of them makes no sense.
    """
    lost = []
    for text in meta.lost.split(",") if meta.lost else ():
        first, end = map(int, text.split("-"))
        lost.append((first, end))
    return _merged([(0, meta.start), *lost])


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if first >= end:
            continue
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def _lacks(after: Meta, before: Meta) -> bool:
    """Whether the new view has a gap where the old one has records: behind its position that has none either."""
    missing = gaps(after)
    far = max((end for _, end in missing), default=0)
    absent = _merged([*gaps(before), (before.position, far)])
    return not all(any(low <= first and end <= high for low, high in absent) for first, end in missing)


def _behind(before: Meta, after: Meta | None) -> int:
    """Records that the new view lacks; one that has not begun the partition lacks at least the knowledge of it."""
    return max(1, before.position) if after is None else max(0, before.position - after.position)


def read_view(wanted: str, kept: str, live: str) -> str:
    """The view that readers read. kept: by status; live: by their Deployment; each empty where it says nothing.

    Status comes first: it is written before the Deployment follows.
    """
    return kept or live or wanted


def next_read(wanted: str, read: str, found: Gate | None, override: str, *, live: bool) -> str:
    """The view that readers are to read now.

    found: of the last look. override: the value of READ_NOW. live: whether the wanted view is whole and applied.
    """
    passed = found is not None and (found.old, found.new) == (read, wanted) and found.is_open
    return wanted if live and (passed or override == wanted) else read


# Each view ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A view in Redis. partitions: that it has begun. lag: records to be applied, None: not known. incomplete: it lacks
    records of the log. whole: each of its partitions has a meta, which a clone writes last. damaged: what of it cannot
    be read, empty: nothing; it counts as whole, so that nobody takes it for the part that a clone has left."""

    partitions: int = 0
    lag: int | None = None
    incomplete: bool = False
    whole: bool = True
    damaged: str = ""

    @property
    def is_there(self) -> bool:
        """Whether it is a view, rather than nothing or the part that a clone has left."""
        return self.partitions > 0 and self.whole

    @property
    def mend(self) -> str:
        """What is damaged, and what to do."""
        return f"{self.damaged}: {_MEND}"


@dataclass(frozen=True, slots=True)
class Look:
    """What the last look found. found: by name, of the views that were looked at; None: Redis did not answer.

    whole_log: whether every partition of the log still begins at 0; None: not known.
    """

    found: Mapping[str, Found] | None = None
    whole_log: bool | None = None
    gate: Gate | None = None

    def of(self, name: str) -> Found | None:
        """A view; None: not known."""
        return None if self.found is None else self.found.get(name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of a view in the cluster.

    served: a Deployment whose pods keep or read it is there. consumers: one whose pods keep it. ready, replicas: of
    that one's pods. pods: any that keep, read, clone or remove it, also on their way out. trouble: what its pods
    complain of. By status, was_live: it was; begun: the Job that was begun and has not done its part, else empty.
    """

    consumers: bool = False
    served: bool = False
    ready: int = 0
    replicas: int = 0
    pods: bool = False
    clone: JobState = ""
    remove: JobState = ""
    trouble: str = ""
    was_live: bool = False
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a view in this pass.

    runs: its consumers are wanted. start: a Job to begin; source: the view that a clone is of. finish: Jobs that have
    done their part, and go. begun: the Job that is begun and has not done its part. gone: status forgets it.
    """

    name: str
    state: State
    message: str = ""
    runs: bool = False
    start: JobKind | None = None
    source: str = ""
    finish: tuple[JobKind, ...] = ()
    begun: JobKind | None = None
    gone: bool = False


def keep(view: View, source: str, seen: Seen, look: Look, jobs: Mapping[JobKind, str]) -> Plan:
    """The next step for a view that the spec names.

    source: the view that a clone would be of; where that is itself, there is nothing to clone. jobs: names of the Jobs.
    """
    name = view.name
    # 1. What a removal has begun must come to its end: the rest would count as the view.
    if seen.remove or seen.begun == "remove":
        return _removal(name, seen, look, jobs["remove"], again=True)
    # 2. Its consumers are there, so it is, and is never cloned over.
    if seen.consumers:
        return _running(name, seen, look)
    # 3. A clone is under way.
    if seen.clone:
        return _cloning(name, seen.clone, look, jobs["clone"])
    # 4. What Redis has of it is the view, unless that is the part which a clone has left.
    if view.source == "Log" or source == name:
        return Plan(name, "Building", "its consumers start at the beginning of the log", runs=True)
    return _new(view, source, look, jobs["clone"], unfinished=seen.begun == "clone")


def leave(name: str, policy: str, seen: Seen, look: Look, jobs: Mapping[JobKind, str], *, is_read: bool) -> Plan:
    """The next step for a view that the spec no longer names.

    policy: its last deletionPolicy. jobs: as for keep. is_read: readers have not changed over yet.
    """
    if is_read:
        text = "spec.views no longer names it; it stays until readers have changed over"
        return Plan(name, "Live", text, runs=seen.consumers)
    finish: tuple[JobKind, ...] = ("clone",) if seen.clone else ()
    found = look.of(name)
    whole = found is not None and found.is_there
    cloned = seen.clone in ("Active", "Failed") or seen.begun == "clone"
    part = seen.begun == "remove" or (cloned and not whole)  # no view, and nobody's data
    if policy != "Delete" and not part and not seen.remove:
        return Plan(name, "Removing", "its data stay (deletionPolicy: Retain)", finish=finish, gone=not seen.consumers)
    if not seen.remove and (seen.served or seen.pods or finish):
        begun: JobKind | None = "clone" if part else None
        text = "its data are removed once its last pod has ended"
        return Plan(name, "Removing", text, finish=finish, begun=begun)
    return _removal(name, seen, look, jobs["remove"], again=False)


def _removal(name: str, seen: Seen, look: Look, job: str, *, again: bool) -> Plan:
    """The next step of a removal. again: the spec names the view, so it is built once the removal is done."""
    done = Plan(name, "Building" if again else "Removing", "its former data are gone", gone=not again)
    match seen.remove:
        case "Complete":
            return replace(done, finish=("remove",))
        case "Active":
            then = "; then it is built anew" if again else ""
            return Plan(name, "Removing", f"Job {job} removes its data{then}", begun="remove")
        case "Failed":
            return Plan(name, "Failed", _failed(job, "removed"), begun="remove")
    found = look.of(name)
    if found is not None and not found.partitions:
        return done
    kept: JobKind | None = "remove" if seen.begun == "remove" else None
    if found is None:
        return Plan(name, "Removing", "waiting for a look at Redis", begun=kept)
    return Plan(name, "Removing", f"Job {job} is about to remove its data", start="remove", begun="remove")


def _running(name: str, seen: Seen, look: Look) -> Plan:
    finish: tuple[JobKind, ...] = ("clone",) if seen.clone in ("Complete", "Failed") else ()
    found = look.of(name)
    live = Plan(name, "Live", runs=True, finish=finish)
    if seen.replicas == 0:
        return replace(live, message="no consumers are wanted: it stays as it is")
    if seen.ready and found is not None and found.damaged:
        return replace(live, message=found.mend)
    if seen.ready and (found is None or found.partitions):
        return replace(live, message=seen.trouble if seen.ready < seen.replicas else "")
    if seen.was_live and not seen.ready:
        # Only its consumers have gone for a while.
        return replace(live, message=seen.trouble or "none of its consumers is ready")
    text = seen.trouble or ("it has begun no partition yet" if seen.ready else "none of its consumers is ready yet")
    return replace(live, state="Building", message=text)


def _cloning(name: str, state: JobState, look: Look, job: str) -> Plan:
    if state == "Complete":
        return Plan(name, "Building", "its clone is whole; its consumers start", runs=True, begun="clone")
    found = look.of(name)
    if state == "Failed" and found is not None and found.is_there and not found.damaged:
        # Its pod ended after it had written the metas, or somebody has imported the view by hand.
        text = f"Job {job} has failed, but the view is whole; its consumers start"
        return Plan(name, "Building", text, runs=True, begun="clone")
    if state == "Failed":
        return Plan(name, "Failed", _failed(job, "copied"), begun="clone")
    return Plan(name, "Cloning", f"Job {job} copies it", begun="clone")


def _new(view: View, source: str, look: Look, job: str, *, unfinished: bool) -> Plan:
    """The first step for a view without consumers. unfinished: what Redis has of it is a part that a clone has left."""
    name, begun, template = view.name, look.of(view.name), look.of(source)
    waits = Plan(name, "Building", begun="clone" if unfinished else None)
    if begun is None or template is None:
        return replace(waits, message="waiting for a look at Redis, which may have it already")
    if begun.damaged:
        return replace(waits, message=begun.mend)
    if begun.partitions and (begun.whole or not unfinished):
        text = "Redis has it already; its consumers start where it stands"
        return Plan(name, "Building", text, runs=True)
    reason = _no_template(source, template)
    if view.source == "Auto" and not unfinished:
        if look.whole_log or not template.partitions:
            return Plan(name, "Building", "its consumers start at the beginning of the log", runs=True)
        if look.whole_log is None:
            reason = "waiting for a look at Kafka, which may still have the whole log"
    if reason:
        return replace(waits, message=reason)
    text = f"Job {job} is about to copy {source}"
    return Plan(name, "Cloning", text, start="clone", source=source, begun="clone")


def _no_template(source: str, template: Found) -> str:
    """Why a view cannot be cloned yet; empty: it can."""
    if template.damaged:
        return f"view {source}, which is to be cloned, is damaged: {template.mend}"
    if not template.is_there:
        return f"waiting for view {source}, which is to be cloned and is not whole yet"
    return ""


def _failed(job: str, done: str) -> str:
    return (
        f"it could not be {done}: kubectl logs job/{job} says why. Mend that, then kubectl delete job {job}: the "
        "operator tries again"
    )


# What is said ------------------------------------------------------------------------------------


def judge(spec: Spec, read: str, look: Look, plans: Sequence[Plan]) -> Verdict:
    """The condition ViewReady. read: the view that readers read."""
    wanted, named = spec.reader.view, {view.name for view in spec.views}
    failed = [plan for plan in plans if plan.state == "Failed"]
    building = [plan for plan in plans if plan.state in ("Building", "Cloning")]
    lame = [plan for plan in plans if plan.state == "Live" and plan.name in named and plan.message]
    kept = f"; kept are {', '.join(view.name for view in spec.views)}" if len(spec.views) > 1 else ""
    verdict = Verdict("True", "Serving", f"readers read {read}{kept}")
    if ours := [plan for plan in failed if plan.name in named]:
        verdict = Verdict("False", "CloneFailed", _said(ours))
    elif hurt := _damage(look, (read, wanted)):
        verdict = Verdict("False", "DamagedView", hurt + _all_the_same(read, wanted, look))
    elif read != wanted and any(plan.name == wanted for plan in building):
        verdict = Verdict("False", "Building", _said([plan for plan in building if plan.name == wanted]))
    elif read != wanted:
        verdict = _switching(read, wanted, look.gate)
    elif building:
        verdict = Verdict("False", "Building", _said(building))
    elif hurt := _damage(look, [view.name for view in spec.views]):
        verdict = Verdict("False", "DamagedView", hurt)
    elif failed:
        verdict = Verdict("False", "RemovalFailed", _said(failed))
    elif lame:
        verdict = Verdict("False", "NotApplied", _said(lame))
    waits = f"; readers go on with {read}"
    if read == wanted or waits[2:] in verdict.message:
        return verdict
    return replace(verdict, message=verdict.message + waits)


def _switching(read: str, wanted: str, found: Gate | None) -> Verdict:
    if found is None or (found.old, found.new) != (read, wanted) or found.is_open:
        text = f"readers go on with {read} until a look at Redis shows how far {wanted} is"
        return Verdict("False", "CatchingUp", text)
    return found.verdict


def _damage(look: Look, names: Iterable[str]) -> str:
    """What is damaged of some views; empty: nothing that is known of."""
    found = [(name, one) for name in dict.fromkeys(names) if (one := look.of(name)) is not None and one.damaged]
    return "; ".join(f"view {name}: {one.mend}" for name, one in found[:_SHOWN])


def _all_the_same(read: str, wanted: str, look: Look) -> str:
    """How readers get away from a damaged view to one that is not: no look can compare the two."""
    if read == wanted or _damage(look, (wanted,)):
        return ""
    return f"; readers go on with {read} until it is mended, or the annotation {READ_NOW} is set to {wanted}"


def _said(plans: Sequence[Plan]) -> str:
    return "; ".join(f"view {plan.name}: {plan.message or plan.state}" for plan in plans[:_SHOWN])


def entries(
    plans: Iterable[Plan], seen: Mapping[str, Seen], look: Look, policies: Mapping[str, str]
) -> list[dict[str, Any]]:
    """status.views. policies: name -> deletionPolicy."""
    found = []
    for plan in plans:
        if plan.gone:
            continue
        one, known = seen.get(plan.name, Seen()), look.of(plan.name)
        entry: dict[str, Any] = {
            "name": plan.name,
            "state": plan.state,
            "ready": one.ready,
            "replicas": one.replicas,
            "deletionPolicy": policies.get(plan.name, "Retain"),
        }
        if known is not None and known.partitions and plan.state in ("Live", "Building"):
            if known.lag is not None:
                entry["lag"] = known.lag
            entry["incomplete"] = known.incomplete
        if plan.begun:
            entry["job"] = plan.begun
        if plan.message:
            entry["message"] = shortened(plan.message)
        found.append(entry)
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """What status.views and status.readView held: what outlives this process."""

    read: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)


def kept_in(status: Mapping[str, Any]) -> Kept:
    """Read it."""
    views = status.get("views") or []
    return Kept(
        str(status.get("readView") or ""),
        {view["name"]: view.get("state", "") for view in views},
        {view["name"]: view.get("deletionPolicy", "Retain") for view in views},
        {view["name"]: view.get("job", "") for view in views},
    )


def looked_at(spec: Spec, kept: Kept, read: str) -> tuple[str, ...]:
    """The views that a look reads, the one that is read first."""
    return tuple(dict.fromkeys((read, *(view.name for view in spec.views), *kept.states)))


def found_in(metas: Mapping[int, Meta], begun: int, ends: Mapping[int, int] | None, damaged: str = "") -> Found:
    """A view by its metas. begun: how many partitions its list names. ends: of the log, looked up before the metas.
    damaged: what could not be read, so that the rest does not tell how far it is."""
    lag: int | None = None
    incomplete = any(meta.incomplete for meta in metas.values())
    if damaged:
        return Found(max(1, begun), None, incomplete, whole=True, damaged=damaged)
    if ends is not None:
        lag = sum(max(0, end - (metas[n].position if n in metas else 0)) for n, end in ends.items())
    return Found(begun, lag, incomplete, whole=len(metas) == begun)


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(numbers)[:_SHOWN]))
    return shown + (f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else "")
