"""What nodes and templates say to one another."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import UndecodableError
from cocaine_tx.wire import template


class MessageTests(SynchronousTestCase):
    def test_there_and_back(self):
        """Every message is understood as it was meant, odd bytes in paths included."""
        fork = template.Fork(7, {"--uuid": "u", "--endpoint": "/run/\udcff"}, {"A": "ä"})
        for order in (fork, template.Reap(7)):
            self.assertEqual(template.unpack_order(template.pack_order(order)), order)
        for report in (
            template.Ready(), template.Unfit("no"), template.Forked(7), template.Failed(7, "no"), template.Ended(7, -9)
        ):  # fmt: skip
            self.assertEqual(template.unpack_report(template.pack_report(report)), report)

    def test_nonsense(self):
        """Whatever else an app's process says is refused as one kind of error."""
        for value in (None, 5, [], [99], ["x"], [-1, 1], [True], [2], [2, "7"], [2, True], [2, 7, 8], [4, 1, None], {}):
            data = msgpack.packb(value)
            if value == [True]:
                data += b"rest"
            self.assertRaises(UndecodableError, template.unpack_report, data)
        self.assertRaises(UndecodableError, template.unpack_report, b"")
        self.assertRaises(UndecodableError, template.unpack_order, template.pack_report(template.Unfit("x")))
