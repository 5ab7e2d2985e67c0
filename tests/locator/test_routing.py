"""Routing groups: the same picks as the original's, and clear words for groups that cannot be used."""

from __future__ import annotations

from collections import Counter

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import RoutingStorageError
from cocaine_tx.locator.routing import Continuum, Groups, seed_key, weights

VECTOR = {"app_v1": 1, "app_v2": 3}


class ContinuumTests(SynchronousTestCase):
    def test_points(self) -> None:
        """The ring of the reference's vector, point for point where it is given."""
        points = Continuum(VECTOR).points()
        self.assertEqual(len(points), 512)
        self.assertEqual(Counter(app for _, app in points), {"app_v1": 128, "app_v2": 384})
        self.assertEqual(points[:3], [[10939163, "app_v2"], [16345443, "app_v2"], [16578313, "app_v2"]])
        self.assertEqual(points[-1], [4288951102, "app_v2"])
        self.assertEqual(points, sorted(points))
        first = {3243583082, 2486441620, 3211245061, 4154212928}
        self.assertTrue(first <= {point for point, app in points if app == "app_v1"})

    def test_seeds(self) -> None:
        """Seeds find the members that the running original finds."""
        ring = Continuum(VECTOR)
        for seed, key, app in (
            (b"user1", 3243234095, "app_v1"),
            (b"user2", 2002352851, "app_v1"),
            (b"user3", 1678915159, "app_v2"),
            (b"abc", 660579410, "app_v2"),
        ):
            self.assertEqual((seed_key(seed), ring.pick(key)), (key, app))

    def test_edges(self) -> None:
        """The next point strictly above the key answers; above the last, the first."""
        ring = Continuum(VECTOR)
        points = ring.points()
        self.assertEqual(ring.pick(0), points[0][1])
        at = next(i for i in range(1, 512) if points[i - 1][1] != points[i][1])
        self.assertEqual(ring.pick(points[at - 1][0]), points[at][1])
        self.assertEqual(ring.pick(points[at - 1][0] - 1), points[at - 1][1])
        self.assertEqual(ring.pick(2**32 - 1), points[0][1])

    def test_idle_member(self) -> None:
        """A member of weight 0 is never picked."""
        ring = Continuum({"a": 0, "b": 5})
        self.assertEqual({app for _, app in ring.points()}, {"b"})

    def test_shares(self) -> None:
        """Random keys are spread about as the weights say."""
        ring = Continuum(VECTOR)
        share = sum(ring.pick(key) == "app_v1" for key in range(0, 2**32, 2**20)) / 4096
        self.assertApproximates(share, 0.25, 0.08)

    @settings(max_examples=25)
    @given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 1000), min_size=1, max_size=5), st.binary())
    def test_stable(self, members: dict[str, int], seed: bytes) -> None:
        """A seed finds the same member in whatever order the group was stored."""
        back = dict(reversed(members.items()))
        self.assertEqual(Continuum(members).pick(seed_key(seed)), Continuum(back).pick(seed_key(seed)))


class WeightsTests(SynchronousTestCase):
    def test_stored(self) -> None:
        """Groups stored by old and by new tools read the same."""
        for binary in (False, True):
            blob = msgpack.packb({b"app_v1": 1, b"app_v2": 3}, use_bin_type=binary)
            self.assertEqual(weights(blob, "app"), VECTOR)
        self.assertEqual(weights(msgpack.packb({"a": 0, "b": 2**32 - 1}), "g"), {"a": 0, "b": 2**32 - 1})

    def test_unusable(self) -> None:
        """A group that cannot be used answers [10, 2] and says why."""
        for stored, why in (
            (b"\xc1", "cannot be decoded"),
            (b"", "cannot be decoded"),
            (msgpack.packb([1]), "not a map"),
            (msgpack.packb({}), "sum of its weights must be positive"),
            (msgpack.packb({"a": 0}), "sum of its weights must be positive"),
            (msgpack.packb({"a": -1}), "the weight of 'a' must be a whole number"),
            (msgpack.packb({"a": 1.5}), "the weight of 'a' must be a whole number"),
            (msgpack.packb({"a": True}), "the weight of 'a' must be a whole number"),
            (msgpack.packb({"a": "1"}), "the weight of 'a' must be a whole number"),
            (msgpack.packb({"a": 2**32}), "the weight of 'a' must be a whole number"),
            (msgpack.packb({1: 1}), "name must be text"),
            (msgpack.packb({"": 1}), "name must be text"),
            (msgpack.packb({str(n): 1 for n in range(513)}), "more than 512 members"),
        ):
            error = self.assertRaises(RoutingStorageError, weights, stored, "app")
            self.assertEqual(error.pair, (10, 2))
            self.assertIn(why, error.reason)


class GroupsTests(SynchronousTestCase):
    def test_target(self) -> None:
        """A group's name leads to a member, any other name to itself, and a member is not looked up again."""
        groups = Groups({"app": Continuum(VECTOR), "app_v1": Continuum({"x": 1})})
        self.assertEqual(groups.target("app", seed_key(b"user1")), "app_v1")
        self.assertEqual(groups.target("storage", 7), "storage")

    def test_changed(self) -> None:
        """A refresh replaces and removes groups and leaves the value in use as it was."""
        groups = Groups({"a": Continuum({"x": 1}), "b": Continuum({"y": 1})})
        after = groups.changed({"a": None, "b": Continuum({"z": 1}), "c": Continuum({"x": 1}), "gone": None})
        self.assertEqual({name: after.target(name, 0) for name in "abc"}, {"a": "a", "b": "z", "c": "x"})
        self.assertEqual(groups.target("a", 0), "x")

    def test_stream(self) -> None:
        """The stream carries every ring in full, and an empty map when there is no group."""
        self.assertEqual(Groups().as_map(), {})
        ring = Continuum({"x": 1})
        self.assertEqual(Groups({"g": ring}).as_map(), {"g": ring.points()})
