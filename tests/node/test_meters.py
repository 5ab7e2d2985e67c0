"""The figures that ``info`` shows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.meters import Average, Rate, Timings


class RateTests(SynchronousTestCase):
    def test_young(self) -> None:
        """An app one second old with 3 requests shows what the original was seen to show."""
        rate = Rate(100.0)
        for _ in range(3):
            rate.mark(100.5)
        self.assertEqual((rate.averages(101.0), rate.mean(101.0)), ([0.0, 0.0, 0.0], 3.0))
        self.assertEqual(rate.mean(100.0), 0.0)

    def test_steady(self) -> None:
        """A steady rate is shown as it is by all three averages, read or not."""
        rate = Rate(0.0)
        for tenth in range(1200):
            rate.mark(tenth / 10)
        for average in rate.averages(120.0):
            self.assertApproximates(average, 10.0, 0.1)
        self.assertAlmostEqual(rate.mean(120.0), 10.0)

    def test_silence(self) -> None:
        """After a burst each average falls by e in its window, whether or not anybody looks in between."""
        looked, unlooked = Rate(0.0), Rate(0.0)
        for rate in (looked, unlooked):
            for _ in range(500):
                rate.mark(1.0)
        self.assertEqual(looked.averages(5.0), [100.0] * 3)
        for second in range(5, 65):
            looked.averages(float(second))
        for seen in (looked.averages(65.0), unlooked.averages(65.0)):
            self.assertApproximates(seen[0], 36.79, 0.01)
            self.assertApproximates(seen[1], 81.87, 0.01)
            self.assertApproximates(seen[2], 93.55, 0.01)

    def test_change(self) -> None:
        """A higher rate is approached, the shorter window first."""
        rate = Rate(0.0)
        rate.mark(0.0)
        rate.averages(5.0)
        for tenth in range(50, 350):
            rate.mark(tenth / 10)
        m1, m5, m15 = rate.averages(35.0)
        self.assertTrue(10 > m1 > m5 > m15 > 0.2, (m1, m5, m15))


class AverageTests(SynchronousTestCase):
    def test_window(self) -> None:
        """A depth of 10 held for two seconds is shown as 6.33, and fades when the queue is empty."""
        depth = Average(0.0)
        depth.set(10, 0.0)
        self.assertEqual(depth.read(0.0), 0.0)
        self.assertEqual(depth.read(2.0), 6.322)
        depth.set(0, 2.0)
        self.assertEqual(depth.read(4.0), 2.326)
        self.assertEqual(depth.read(100.0), 0.0)

    def test_rounding(self) -> None:
        """The third decimal is rounded up, so that a queue that was used shows."""
        depth = Average(0.0)
        depth.set(1, 0.0)
        self.assertEqual(depth.read(0.0003), 0.001)


class TimingsTests(SynchronousTestCase):
    def test_empty(self) -> None:
        """Before the first request all figures are there and zero."""
        timings = Timings(0.0)
        self.assertEqual(
            timings.percentiles(),
            dict.fromkeys(("50.00%", "75.00%", "90.00%", "95.00%", "98.00%", "99.00%", "99.95%"), 0.0),
        )
        self.assertEqual(
            timings.reversed(),
            dict.fromkeys(("1ms", "2ms", "5ms", "10ms", "20ms", "50ms", "100ms", "500ms", "1000ms"), 0.0),
        )

    def test_spread(self) -> None:
        """Times spread evenly from 0.1 to 100 ms are shown within 5%, and the shares exactly."""
        timings = Timings(0.0)
        for tenth in range(1, 1001):
            timings.record(tenth / 10_000, 1.0)
        seen = timings.percentiles()
        for key, expected in (
            ("50.00%", 50.0), ("75.00%", 75.0), ("90.00%", 90.0), ("95.00%", 95.0), ("98.00%", 98.0),
            ("99.00%", 99.0), ("99.95%", 99.95),
        ):  # fmt: skip
            self.assertTrue(abs(seen[key] / expected - 1) < 0.05, (key, seen[key]))
        self.assertEqual(
            timings.reversed(),
            {"1ms": 0.9, "2ms": 1.9, "5ms": 4.9, "10ms": 9.9, "20ms": 19.9, "50ms": 49.9, "100ms": 99.9,
             "500ms": 100.0, "1000ms": 100.0},
        )  # fmt: skip

    def test_extremes(self) -> None:
        """Times of nothing, below nothing (a clock that went back) and of years do no harm."""
        timings = Timings(0.0)
        for seconds in (0.0, -1.0, 1e9, float("inf")):
            timings.record(seconds, 0.0)
        self.assertEqual(timings.reversed()["1ms"], 50.0)
        self.assertGreater(timings.percentiles()["99.95%"], 86_400_000)

    def test_forgetting(self) -> None:
        """A slow start is forgotten after five minutes of fast answers."""
        timings = Timings(0.0)
        for second in range(400):
            timings.record(1.0 if second < 50 else 0.001, float(second))
        self.assertLess(timings.percentiles()["99.95%"], 1.1)

    def test_kept_in_silence(self) -> None:
        """What was measured last stays visible while nobody asks the app."""
        timings = Timings(0.0)
        timings.record(0.003, 1.0)
        self.assertApproximates(timings.percentiles()["50.00%"], 3.0, 0.15)
