"""Profiles: what an operator may write, and what he is told when it cannot be used."""

from __future__ import annotations

import math

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import InvalidArgument, UncaughtError
from cocaine_tx.node.profile import Profile, QueuePolicy

DEFAULTS = {
    "pool_limit": 10, "pool_min": 0, "queue_limit": 100, "concurrency": 10, "grow_threshold": 5,
    "queue_policy": QueuePolicy.FIFO, "queue_age_limit": 1.0, "event_buffer_limit": 16777216,
    "queue_buffer_limit": 134217728, "crashlog_limit": 50,
    "log_output": False, "spawn_timeout": 1.0, "handshake_timeout": 5.0, "heartbeat_timeout": 30.0,
    "seal_timeout": 60.0, "terminate_timeout": 10.0, "idle_timeout": None, "request_timeout": 86400.0,
    "half_closed_timeout": None, "publish_on": 0, "unpublish_under": 0, "isolate_type": "process", "isolate_args": {},
}  # fmt: skip


def changed(raw: dict[str, object]) -> dict[str, object]:
    """What a profile has other than the defaults."""
    profile = Profile.from_dict(raw)
    return {key: getattr(profile, key) for key, value in DEFAULTS.items() if getattr(profile, key) != value}


class ProfileTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """An empty profile is the documented one."""
        self.assertEqual(changed({}), {})

    def test_each_key(self) -> None:
        """Every key changes what it names and nothing else."""
        for key, value, expected in (
            ("pool-min", 2, 2), ("concurrency", 1, 1), ("grow-threshold", 7, 7), ("crashlog-limit", 0, 0),
            ("queue-policy", "adaptive", QueuePolicy.ADAPTIVE), ("queue-age-limit", 0.25, 0.25),
            ("event-buffer-limit", 1024, 1024), ("queue-buffer-limit", 9, 9), ("log-output", True, True),
            ("spawn-timeout", 10, 10.0), ("handshake-timeout", 0.5, 0.5), ("heartbeat-timeout", 1, 1.0),
            ("seal-timeout", 0, 0.0), ("terminate-timeout", 0, 0.0), ("idle-timeout", 600, 600.0),
            ("request-timeout", 1.5, 1.5), ("half-closed-timeout", 3, 3.0), ("publish-on", 10, 10),
        ):  # fmt: skip
            self.assertEqual(changed({key: value}), {key.replace("-", "_"): expected}, key)
        self.assertEqual(
            changed({"publish-on": 2, "unpublish-under": 1}), {"publish_on": 2, "unpublish_under": 1}
        )
        self.assertEqual(
            changed({"isolate": {"type": "docker", "args": {"registry": "r"}}}),
            {"isolate_type": "docker", "isolate_args": {"registry": "r"}},
        )

    def test_grow_threshold(self) -> None:
        """The default threshold follows the limits, rounds down, and neither it nor an explicit one is below 1."""
        for raw, expected in (
            ({"queue-limit": 0}, 1),
            ({"queue-limit": 100, "pool-limit": 1}, 50),
            ({"queue-limit": 100, "pool-limit": 7}, 7),
            ({"queue-limit": 5, "pool-limit": 10}, 1),
            ({"grow-threshold": 0}, 1),
            ({"grow-threshold": 3}, 3),
        ):
            self.assertEqual(Profile.from_dict(raw).grow_threshold, expected, raw)

    def test_old_names(self) -> None:
        """Profiles of version 0.11 keep their meaning; a new name beside an old one wins."""
        self.assertEqual(
            changed({"startup-timeout": 20, "termination-timeout": 3}),
            {"spawn_timeout": 20.0, "handshake_timeout": 20.0, "terminate_timeout": 3.0},
        )
        self.assertEqual(
            changed({"startup-timeout": 20, "spawn-timeout": 2, "termination-timeout": 3, "terminate-timeout": 4}),
            {"spawn_timeout": 2.0, "handshake_timeout": 20.0, "terminate_timeout": 4.0},
        )

    def test_never(self) -> None:
        """Zero for the optional times means never, as in version 0.11."""
        self.assertEqual(changed({"idle-timeout": 0, "half-closed-timeout": 0}), {})

    def test_original_texts(self) -> None:
        """Limits that make no sense are refused in the original's words, before anything is derived from them."""
        for raw, words in (
            ({"heartbeat-timeout": 0}, "slave heartbeat timeout must be positive"),
            ({"pool-limit": 0}, "engine pool limit must be positive"),
            ({"pool-limit": 0, "grow-threshold": 0}, "engine pool limit must be positive"),
            ({"concurrency": 0}, "engine concurrency must be positive"),
            ({"publish-on": 11}, "publish threshold must not be greater than pool limit"),
            ({"publish-on": 1, "unpublish-under": 2}, "publish threshold must not be less than unpublish one"),
            ({"pool-min": 11}, "pool-min must not be greater than pool-limit"),
            ({"handshake-timeout": 0}, "handshake-timeout must be positive"),
            ({"request-timeout": 0}, "request-timeout must be positive"),
            ({"isolate": {"type": ""}}, "isolate type must not be empty"),
        ):
            error = self.assertRaises(InvalidArgument, Profile.from_dict, raw)
            self.assertEqual((error.pair, error.reason), ((12, 22), words), raw)

    def test_wrong_counts(self) -> None:
        """Every count refuses what is not a count."""
        for key in (
            "pool-limit", "pool-min", "queue-limit", "concurrency", "grow-threshold", "crashlog-limit",
            "event-buffer-limit", "publish-on", "unpublish-under",
        ):  # fmt: skip
            for value in (-1, True, "10", 1.5, math.nan, 2**31, 2**70, [], {}):
                error = self.assertRaises(InvalidArgument, Profile.from_dict, {key: value})
                self.assertEqual(error.pair, (12, 22))
                self.assertIn(f"{key} must be a whole number from 0 to 2147483647, not ", error.reason)

    def test_wrong_times(self) -> None:
        """Every time refuses what is not a time."""
        for key in (
            "spawn-timeout", "handshake-timeout", "heartbeat-timeout", "seal-timeout", "terminate-timeout",
            "idle-timeout", "request-timeout", "half-closed-timeout", "queue-age-limit", "startup-timeout",
            "termination-timeout",
        ):  # fmt: skip
            for value in (-0.5, True, "10", math.nan, math.inf, -math.inf, 2**400, []):
                error = self.assertRaises(InvalidArgument, Profile.from_dict, {key: value})
                self.assertIn(f"{key} must be a number of seconds", error.reason)

    def test_wrong_rest(self) -> None:
        """The complaint names the profile, the key, the rule and the value."""
        for raw, words in (
            ({"pool-limit": "ten"}, "pool-limit must be a whole number from 0 to 2147483647, not text 'ten'"),
            ({"log-output": 0}, "log-output must be true or false, not 0"),
            ({"queue-policy": "lifo"}, "queue-policy must be 'fifo' or 'adaptive', not text 'lifo'"),
            ({"isolate": "docker"}, "isolate must be a map, not text 'docker'"),
            ({"isolate": {"type": 1}}, "isolate: type must be text without NUL, not 1"),
            ({"isolate": {"args": []}}, "isolate: args must be a map, not a list"),
        ):
            error = self.assertRaises(InvalidArgument, Profile.from_dict, raw, "default")
            self.assertEqual(error.reason, f"profile 'default': {words}")

    def test_stored(self) -> None:
        """A stored profile reads like its map; other bytes answer [7, 7]."""
        raw = {"pool-limit": 3, "isolate": {"type": "process", "args": {"spool": "/srv/spool"}}}
        blob = msgpack.packb(raw, use_bin_type=False)
        self.assertEqual(Profile.from_blob(blob, "p"), Profile.from_dict(raw, "p"))
        self.assertEqual(self.assertRaises(UncaughtError, Profile.from_blob, b"\xc1").pair, (7, 7))

    def test_expanded(self) -> None:
        """``info`` shows what was stored as it was stored, beside the values in force; it can be stored again."""
        raw = {"pool-limit": 3, "comment": "mine", "startup-timeout": 20}
        profile = Profile.from_dict(raw)
        shown = profile.expanded()
        self.assertEqual({key: shown[key] for key in raw}, raw)
        self.assertEqual((shown["queue-limit"], shown["spawn-timeout"], shown["idle-timeout"]), (100, 20.0, 0))
        again = Profile.from_dict(shown)
        self.assertEqual([getattr(again, key) for key in DEFAULTS], [getattr(profile, key) for key in DEFAULTS])
