"""The gateway in a real kernel, in a virtual machine, since the kernel of a build host rarely has IPVS."""

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.vm import machine


class Kernel(SynchronousTestCase):
    """IPVS as it is."""

    skip = machine.missing() or None

    def test_in_a_machine(self):
        """
        The real table keeps the contract; requests spread by weight, nodes leave and return, and a restart of the
        gateway breaks no flow.
        """
        status, output = machine.run(
            sys.executable, "-m", "twisted.trial", "--temp-directory=/tmp/trial", "tests.integration.vm.inside"
        )
        self.assertEqual(status, 0, output)
