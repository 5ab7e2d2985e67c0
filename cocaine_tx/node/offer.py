"""
An app's service as others see it: its port and its name in the locator, there or not.

Source: reference ``node-engine.md`` section 3.1 (publication is separate from the app's state).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..errors import CocaineError, PublishError
from ..interfaces import Publication
from .balance import Publicity


class Offer:
    """
    The one place that publishes and withdraws.

    :param publish: opens a port for the service and tells the locator.
    """

    _log = Logger()

    def __init__(self, app: str, publish: Callable[[], Deferred[Publication]]) -> None:
        self._app = app
        self._publish = publish
        self._publication: Publication | None = None
        self._publishing = False
        self._closed = False

    @property
    def published(self) -> bool:
        """Clients can find it."""
        return self._publication is not None

    def follow(self, verdict: Publicity) -> None:
        """Do as the thresholds say; what fails is logged, and tried again when they say so again."""
        if self._closed or self._publishing:
            return
        if verdict is Publicity.PUBLISH:
            Deferred.fromCoroutine(self.make()).addErrback(self._failed)
        elif verdict is Publicity.WITHDRAW:
            self._withdraw()

    async def make(self) -> None:
        """
        Publish now.

        :raises CocaineError: it cannot be; `PublishError` for what is not ours.
        """
        self._publishing = True
        try:
            publication = await self._publish()
        except CocaineError:
            raise
        except Exception as problem:
            raise PublishError(f"app '{self._app}' cannot be published: {problem}") from problem
        finally:
            self._publishing = False
        self._publication = publication
        if self._closed:
            await self._withdraw()

    def close(self) -> Deferred[None]:
        """Withdraw for good; also what is still being published."""
        self._closed = True
        return self._withdraw()

    def _withdraw(self) -> Deferred[None]:
        publication, self._publication = self._publication, None
        return succeed(None) if publication is None else publication.withdraw().addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        self._log.failure("{app}: its service cannot be published or withdrawn", failure, app=self._app)
