"""What an operator is shown: numbers that add up over processes, under names that cannot become too many."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import UndecodableError
from cocaine_tx.proxy.metrics import METHODS, Meters, Totals, sum_of


class CountersTests(SynchronousTestCase):
    def test_large(self) -> None:
        """Every request moves its counter, also the one after a million."""
        meters = Meters()
        meters.accepted, meters.sent = 1_234_567, 98_765_432_101
        meters.statuses["shop", 200] = 7_654_321
        lines = meters.text({}).splitlines()
        for line in (
            "cocaine_proxy_connections_accepted_total 1234567",
            "cocaine_proxy_sent_bytes_total 98765432101",
            'cocaine_proxy_requests_total{app="shop",code="200"} 7654321',
        ):
            self.assertIn(line, lines)

    def test_unconnected(self) -> None:
        """A name that leads nowhere, which any client can make up, makes no number."""
        lines = Meters().text({"shop": 2, "made-up": 0}).splitlines()
        name = "cocaine_proxy_upstream_connections{"
        self.assertEqual([line for line in lines if line.startswith(name)], [name + 'app="shop"} 2'])


class CallsTests(SynchronousTestCase):
    def meters(self) -> Meters:
        meters = Meters()
        meters.called("storage", "read", "result")
        meters.called("storage", "read", "error")
        meters.called(None, None, "error")
        return meters

    def test_shown(self) -> None:
        """Prometheus gets each method and outcome, ``/info`` their sums."""
        name = "cocaine_proxy_jsonrpc_calls_total"
        self.assertEqual(
            [line for line in self.meters().text({}).splitlines() if line.startswith(name)],
            [
                name + '{service="(others)",method="(others)",outcome="error"} 1',
                name + '{service="storage",method="read",outcome="error"} 1',
                name + '{service="storage",method="read",outcome="result"} 1',
            ],
        )
        self.assertEqual(self.meters().info({})["jsonrpc"], {"result": 1, "error": 2})
        self.assertEqual(Meters().info({})["jsonrpc"], {"result": 0, "error": 0})

    def test_several_processes(self) -> None:
        """What each process reports is summed, and stays when one ends."""
        reported = Totals.read(Totals(self.meters(), {}, True).packed())
        total = sum_of([reported, Totals(self.meters()), reported.ended()]).meters
        self.assertEqual(total.calls[("storage", "read", "result")], 3)
        self.assertEqual(total.calls[("(others)", "(others)", "error")], 3)
        self.assertRaises(UndecodableError, Totals.read, b'[{"calls": 1}, {}, true]')

    def test_bounded(self) -> None:
        """A service with very many methods does not make very many numbers."""
        meters = Meters()
        for number in range(METHODS + 100):
            meters.called("wide", f"method{number}", "result")
        meters.called("wide", "method0", "result")
        self.assertEqual(len(meters.calls), METHODS + 1)
        self.assertEqual(meters.calls[("(others)", "(others)", "result")], 100)
        self.assertEqual(meters.calls[("wide", "method0", "result")], 2)
