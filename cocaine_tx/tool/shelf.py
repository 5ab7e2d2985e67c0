"""
Named documents in storage: what profiles, runlists and routing groups have in common.

A `Shelf` says where the documents are and what a sound one is; `commands` makes list, view, edit, copy, rename and
remove for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from .command import Act, Command, Job, name_of, option
from .console import Data, Result
from .documents import decode, encode
from .editing import edited
from .exits import Refused
from .storage import Storage


@dataclass(frozen=True, slots=True)
class Shelf:
    """
    One kind of document.

    :ivar noun: its word on the command line.
    :ivar title: its name in sentences.
    :ivar collection: where storage keeps it.
    :ivar tags: what it is found by.
    :ivar check: raises `cocaine_tx.tool.exits.WrongValue` for a document that nobody could use.
    """

    noun: str
    title: str
    collection: str
    tags: tuple[str, ...]
    check: Callable[[Any], None]

    async def names(self, storage: Storage) -> list[str]:
        """All documents' names."""
        return await storage.find(self.collection, *self.tags)

    async def read(self, storage: Storage, name: str) -> Any:
        """A document; raises `Refused` when storage holds something else under its name."""
        return self.decoded(name, await storage.read(self.collection, name))

    def decoded(self, name: str, blob: bytes) -> Any:
        """What the stored bytes mean."""
        return decode(blob, f'{self.title} "{name}"')

    async def write(self, storage: Storage, name: str, document: Any) -> None:
        """Check and store a document."""
        self.check(document)
        blob = encode(document, f'{self.title} "{name}"')
        await storage.write(self.collection, name, blob, self.tags)


async def _list(shelf: Shelf, job: Job) -> Result:
    return Data(await shelf.names(Storage(job.platform)))


async def _view(shelf: Shelf, job: Job) -> Result:
    return Data(await shelf.read(Storage(job.platform), job.named(shelf.noun)))


async def _edit(shelf: Shelf, job: Job) -> Result:
    name = job.named(shelf.noun)
    storage = Storage(job.platform)
    before = await storage.read(shelf.collection, name)
    draft = await edited(job, shelf.decoded(name, before), f'{shelf.title} "{name}"', shelf.check)
    if draft is None:
        job.console.warn("nothing was changed")
        return None
    with draft.kept(), job.console.step(f'Saving {shelf.noun} "{name}"'):
        if await storage.read_or_none(shelf.collection, name) != before:
            raise Refused(f'{shelf.title} "{name}" was changed by somebody else meanwhile')
        await shelf.write(storage, name, draft.document)
    return None


async def _copy(shelf: Shelf, job: Job) -> Result:
    name, to = job.named(shelf.noun), str(job.args.copyname)
    with job.console.step(f'Copying {shelf.noun} "{name}" to "{to}"'):
        await _duplicate(shelf, Storage(job.platform), name, to)
    return None


async def _rename(shelf: Shelf, job: Job) -> Result:
    name, to = job.named(shelf.noun), str(job.args.copyname)
    storage = Storage(job.platform)
    with job.console.step(f'Renaming {shelf.noun} "{name}" to "{to}"'):
        await _duplicate(shelf, storage, name, to)
        await storage.remove(shelf.collection, name)
    return None


async def _duplicate(shelf: Shelf, storage: Storage, name: str, to: str) -> None:
    if name == to:
        raise Refused(f'{shelf.title} "{name}" cannot be copied onto itself')
    # The bytes as they are: a copy is the same even where our JSON could not say it.
    await storage.write(shelf.collection, to, await storage.read(shelf.collection, name), shelf.tags)


async def _remove(shelf: Shelf, job: Job) -> Result:
    name = job.named(shelf.noun)
    storage = Storage(job.platform)
    with job.console.step(f'Removing {shelf.noun} "{name}"'):
        if name not in await shelf.names(storage):
            job.console.warn(f'{shelf.noun} "{name}" does not exist')
        await storage.remove(shelf.collection, name)
    return None


def commands(shelf: Shelf, *copy_flags: str) -> tuple[Command, ...]:
    """
    The commands every kind of document has.

    :param copy_flags: how the new name is given (the original's flags differ from noun to noun).
    """

    def on_shelf(act: Callable[[Shelf, Job], Coroutine[Any, Any, Result]]) -> Act:
        return lambda job: act(shelf, job)

    noun, title = shelf.noun, shelf.title
    replaced = "; an existing target is replaced"
    name = name_of(title)
    both = (name, option(*copy_flags, dest="copyname", metavar="NAME", required=True, help=f"new {title.lower()} name"))
    return (
        Command((noun, "list"), f"List the {title.lower()}s in storage.", on_shelf(_list)),
        Command((noun, "view"), f"Show a {title.lower()}.", on_shelf(_view), (name,)),
        Command(
            (noun, "edit"), f"Edit a {title.lower()} in $VISUAL or $EDITOR.", on_shelf(_edit), (name,),
            details="Nothing is written if the text did not change, is not valid, or somebody else changed the object "
            "meanwhile; a text that could not be saved is kept in a file.",
        ),
        Command((noun, "copy"), f"Copy a {title.lower()}{replaced}.", on_shelf(_copy), both),
        Command((noun, "rename"), f"Rename a {title.lower()}{replaced}.", on_shelf(_rename), both),
        Command((noun, "remove"), f"Remove a {title.lower()} from storage.", on_shelf(_remove), (name,)),
    )  # fmt: skip


