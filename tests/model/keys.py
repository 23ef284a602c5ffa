"""Nodes that rotate keys and verifiers that keep copies of them, on a simulated clock, by the rules of the code.

Seconds count by the database's clock. Timing is drawn at random, and most of all close to the moments at which
something changes: `Simulation(seed).run()` returns what went wrong, or None.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from authserver.keys import rotation

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_LIFE = rotation.LONGEST_LIFE.total_seconds()
_POLL, _TRANSACTION, _WAY, _SKEW = 5.0, 2.0, 1.0, 20.0
"""At most so long: between two readings, for a reading or a commit, for an answer; and clocks of verifiers differ."""


def date(second: float) -> datetime:
    return _EPOCH + timedelta(seconds=second)


def second(date: datetime) -> float:
    return (date - _EPOCH).total_seconds()


@dataclass(frozen=True)
class Key:
    kid: int
    signs_from: datetime
    verifies_until: datetime | None = None
    emergency_at: float | None = None
    """When `--now` made it."""


@dataclass(frozen=True)
class Token:
    key: Key
    dies_at: float


@dataclass
class Node:
    keys: list[Key] = field(default_factory=list)
    asked_at: float = 0.0
    answered_at: float = 0.0
    now: datetime = _EPOCH
    is_cut_off: bool = False
    clock_is_wrong_by: float = 0.0

    def time(self, at: float) -> datetime:
        return self.now + timedelta(seconds=at - self.answered_at + self.clock_is_wrong_by)


@dataclass
class Verifier:
    kids: set[int] = field(default_factory=set)
    good_until: float = -1.0


@dataclass(frozen=True)
class Machinery:
    """Each part can be left out, to see what it is good for."""

    decides_again_under_the_lock: bool = True
    uses_the_database_clock: bool = True


class Simulation:
    def __init__(self, seed: int, machinery: Machinery = Machinery()) -> None:
        self.random = Random(seed)
        self.machinery = machinery
        self.max_age = self.random.choice([0, 10, 300, 3600])
        self.announced = rotation.announcement(self.max_age)
        self.period = timedelta(seconds=self.random.choice([0, 30, 1000, 100_000, 7_776_000]))
        self.at = 0.0
        self.written_until = 0.0
        self.history: list[tuple[float, list[Key]]] = [(0.0, [Key(0, _EPOCH)])]
        wrong = 0.0 if machinery.uses_the_database_clock else 600.0
        self.nodes = [Node(clock_is_wrong_by=self.random.choice([0.0, wrong])) for _ in range(3)]
        for node in self.nodes:
            node.keys = self.history[0][1]
        self.verifiers = [Verifier() for _ in range(3)]
        self.tokens: list[Token] = []
        self.broken: str | None = None
        self.rotations = self.verified = 0

    def run(self, steps: int = 400) -> str | None:
        happenings = [self.issue, self.verify, self.verify, self.introspect, self.wait, self.wait, self.trouble]
        for _ in range(steps):
            self.random.choice(happenings)()
            if self.broken:
                break
        return self.broken

    # What happens

    def wait(self) -> None:
        """Go on to a moment close to one at which something changes, or for a little."""
        moments = [token.dies_at for token in self.tokens] + [verifier.good_until for verifier in self.verifiers]
        for key in self.rows(self.at):
            moments += [second(key.signs_from), second(key.verifies_until) if key.verifies_until else 0.0]
            moments.append(second(key.signs_from + self.period - self.announced))
        coming = sorted(moment for moment in moments if moment > self.at)
        target = self.at + self.random.uniform(0, 40)
        if coming and self.random.random() < 0.7:
            near = coming[min(int(self.random.expovariate(1)), len(coming) - 1)]
            target = near + self.random.choice([-0.1, 0.1, self.random.uniform(-10, 10)])
        self.at = max(self.at, target)
        for node in self.random.sample(self.nodes, len(self.nodes)):
            self.poll(node)
            self.rotate_if_due(node)

    def poll(self, node: Node) -> None:
        if node.is_cut_off:
            return
        node.asked_at = self.random.uniform(max(node.asked_at, self.at - _POLL - _TRANSACTION), self.at)
        node.answered_at = self.random.uniform(node.asked_at, min(node.asked_at + _TRANSACTION, self.at))
        read_at = self.random.uniform(node.asked_at, node.answered_at)
        node.now, node.keys = date(read_at), self.rows(read_at)

    def rotate_if_due(self, node: Node) -> None:
        if not node.is_cut_off and self.is_due(node.keys, node.time(self.at)):
            self.write(only_if_due=True)

    def is_due(self, keys: list[Key], now: datetime) -> bool:
        return bool(self.period) and rotation.successor_at(keys, self.period, self.announced) <= now

    def write(self, *, only_if_due: bool = False, at_once: bool = False) -> None:
        """A transaction: it begins now, waits for the one before, and is seen when it commits."""
        now, self.written_until = date(self.at), max(self.at, self.written_until)
        before = self.history[-1][1]
        if only_if_due and self.machinery.decides_again_under_the_lock and not self.is_due(before, now):
            return
        signs_from = now if at_once else rotation.signs_from(before, now, self.announced)
        over = now if at_once else rotation.retired_at(signs_from)
        dated = [
            replace(key, verifies_until=over) if key.verifies_until is None or key.verifies_until > over else key
            for key in before
        ]
        if only_if_due and any(key.signs_from > now for key in before):
            self.broken = "two successors are announced although nobody asked for one"
        made = Key(before[-1].kid + 1, signs_from, emergency_at=self.at if at_once else None)
        self.written_until += self.random.uniform(0, _TRANSACTION)
        self.history.append((self.written_until, [*dated, made]))
        self.rotations += 1

    def trouble(self) -> None:
        """What people and machines do to the nodes."""
        node, dice = self.random.choice(self.nodes), self.random.random()
        if dice < 0.05:
            self.write(at_once=True)
        elif dice < 0.25:
            self.write()
        elif dice < 0.4 and not node.is_cut_off:  # a restart: it knows nothing, and reads
            node.asked_at = node.answered_at = self.at
            node.now, node.keys = date(self.at), self.rows(self.at)
        else:
            node.is_cut_off = not node.is_cut_off and self.random.random() < 0.7

    def issue(self) -> None:
        """A node that has been cut off may still sign something, by a request that began before."""
        node = self.random.choice(self.nodes)
        self.poll(node)
        key = rotation.signer(node.keys, node.time(self.at))
        if not self.is_ready(node):
            return
        if key is None:
            self.broken = "no key signs"
            return
        life = self.random.choice([10.0, 600.0, _LIFE, _LIFE])
        self.tokens.append(Token(key, self.at + life + self.random.uniform(-_SKEW, _SKEW)))

    def introspect(self) -> None:
        """A node that does not know a kid reads again, which `Keyring.find` does."""
        if token := self.live_token():
            keys = {key.kid: key for key in self.rows(self.at)}
            if not rotation.verifies(keys[token.key.kid], date(self.at)):
                self.broken = "a live token has lost its key on a node"

    def verify(self) -> None:
        """Use the copy of the JWKS while it is good, else fetch another from a node that is ready."""
        token, verifier = self.live_token(), self.random.choice(self.verifiers)
        if token is None:
            return
        if self.at >= verifier.good_until:
            node = self.random.choice(self.nodes)
            self.poll(node)
            if not self.is_ready(node):
                return
            now = node.time(self.at)
            verifier.kids = {key.kid for key in node.keys if rotation.verifies(key, now)}
            max_age = rotation.max_age_seconds(self.at - node.asked_at, self.max_age)
            verifier.good_until = self.at + max_age + self.random.uniform(0, _WAY)
        if token.key.kid not in verifier.kids and not self.is_fresh_emergency(token.key):
            self.broken = "a verifier that honours max-age has met an unknown kid"
        self.verified += 1

    # What is so

    def rows(self, at: float) -> list[Key]:
        """The table as transactions that began at this moment see it."""
        return next(keys for committed_at, keys in reversed(self.history) if committed_at <= at)

    def is_ready(self, node: Node) -> bool:
        return rotation.may_sign(self.at - node.asked_at, self.announced)

    def is_fresh_emergency(self, key: Key) -> bool:
        """A key that `--now` made is new to copies for as long as others are announced."""
        return key.emergency_at is not None and date(self.at) < date(key.emergency_at) + self.announced

    def live_token(self) -> Token | None:
        """A token that has not expired, and that no `--now` has ended."""
        ended_by = [key.emergency_at for key in self.history[-1][1] if key.emergency_at is not None]
        kid_since = max((key.kid for key in self.history[-1][1] if key.emergency_at in ended_by), default=0)
        self.tokens = [token for token in self.tokens if token.dies_at > self.at and token.key.kid >= kid_since]
        return self.random.choice(self.tokens) if self.tokens else None
