"""
``app upload``: an app's code and manifest into storage, both or neither.

The code is written before the manifest, so that a listed app has its code. When anything fails after the first write,
what was there before is put back.

Source: reference ``http-tools-sdk.md`` section B.4.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from ..errors import ConnectionGone
from .command import Command, Job, name_of, option
from .console import Done, Result
from .documents import encode, load, mapping
from .exits import ExclusiveOptions, Refused, ServiceError, ToolError, WrongValue
from .package import Entry, archive, entries, manifest_among, packaged
from .storage import Storage, check_name

#: Seconds an upload waits for each answer at the least.
PATIENCE = 120.0
_TAGS = ("app",)
#: Bytes that fit into the largest frame of a storage service whose node has the default ``limits.frame-size``.
LARGEST = 128 * 2**20 - 4096


@dataclass(frozen=True, slots=True)
class Upload:
    """
    What goes into storage.

    :ivar code: the archive, or None to leave the code as it is.
    :ivar flaw: why its workers will not start, or nothing.
    """

    app: str
    manifest: dict[str, Any]
    code: bytes | None
    flaw: str = ""


def _exclusive(args: Any) -> None:
    for one, other in (("path", "package"), ("package", "docker_address"), ("package", "registry")):
        if getattr(args, one) and getattr(args, other):
            raise ExclusiveOptions(_WORDS[one], _WORDS[other])


_WORDS = {"path": "PATH", "package": "--package", "docker_address": "--docker", "registry": "--registry"}


async def upload(job: Job) -> Result:
    """Upload a folder, a package, or a manifest alone."""
    args = job.args
    _exclusive(args)
    job.platform.wait.at_least(PATIENCE)
    if args.manifest_only or args.package:
        job.named("application")
        if not args.manifest:
            raise WrongValue("Please specify manifest file (--manifest)")
    elif args.docker_address:
        raise Refused("Docker images cannot be built by this tool yet: needs docker")
    made: Upload = await job.workplace.aside(_gather, args)
    if "slave" not in made.manifest:
        job.console.warn(f'the manifest of "{made.app}" has no "slave": the app will not start')
    if made.flaw:
        job.console.warn(made.flaw)
    if made.code is not None and len(made.code) > LARGEST:
        job.console.warn(f"the package has {len(made.code)} bytes; storage takes {LARGEST} unless configured for more")
    await _store(job, made)
    size = f" ({len(made.code)} bytes)" if made.code is not None else ""
    return Done(
        f"Application `{made.app}` has been uploaded{size}",
        {"app": made.app, "size": None if made.code is None else len(made.code), "status": "uploaded"},
    )  # fmt: skip


def _gather(args: Any) -> Upload:
    """Everything that needs the disk. Raises `WrongValue` for what cannot be used."""
    if args.manifest_only:
        return Upload(args.name, _manifest(args.manifest), None)
    if args.package:
        return Upload(args.name, _manifest(args.manifest), packaged(args.package))
    folder = os.path.abspath(os.path.expanduser(args.path or "."))
    if not os.path.isdir(folder):
        raise WrongValue(f"{args.path!r} is no folder" + (" (is it a --package?)" if os.path.exists(folder) else ""))
    found = entries(folder)
    source = args.manifest or manifest_among(found)
    if source is None:
        raise WrongValue(f"there is no manifest in {folder!r}; name one by --manifest")
    manifest = _manifest(source)
    return Upload(args.name or os.path.basename(folder), manifest, archive(found), _flaw(manifest.get("slave"), found))


def _flaw(slave: Any, found: list[Entry]) -> str:
    """What keeps a node from starting the program of a folder: it would be seen in the crash log only."""
    if not isinstance(slave, str) or os.path.isabs(slave):
        return ""
    path = next((path for name, path in found if name == os.path.normpath(slave)), None)
    if path is None:
        return f'{slave!r}, which the manifest names as "slave", is not among the files: workers will not start'
    if not os.stat(path).st_mode & stat.S_IXUSR:
        return f'{slave!r}, which the manifest names as "slave", is not executable (chmod +x): workers will not start'
    return ""


def _manifest(source: str) -> dict[str, Any]:
    return mapping(load(source, "manifest"), "a manifest")


async def _store(job: Job, made: Upload) -> None:
    storage = Storage(job.platform)
    check_name("apps", made.app, _TAGS)
    manifest = encode(made.manifest, "the manifest")
    if made.code is None:
        with job.console.step(f'Uploading manifest of "{made.app}"'):
            await storage.write("manifests", made.app, manifest, _TAGS)
        return
    before = {name: await storage.read_or_none(name, made.app) for name in ("apps", "manifests")}
    doubtful: list[str] = []
    try:
        with job.console.step(f'Uploading code of "{made.app}" ({len(made.code)} bytes)'):
            doubtful.append("apps")
            await _write_code(storage, made.app, made.code)
        with job.console.step(f'Uploading manifest of "{made.app}"'):
            doubtful.append("manifests")
            await storage.write("manifests", made.app, manifest, _TAGS)
    except Exception as problem:
        if isinstance(problem, ServiceError) and not isinstance(problem.error, ConnectionGone):
            # Storage itself said no: what it refused has not changed. After a lost connection nobody knows.
            doubtful.pop()
        if doubtful:
            await _put_back(job, made.app, {name: before[name] for name in doubtful}, problem)
        raise


async def _write_code(storage: Storage, app: str, code: bytes) -> None:
    """Store the code. Storage hangs up on a frame that is too large without a word: what it was is ours to say."""
    try:
        await storage.write("apps", app, encode(code, "the package"), _TAGS)
    except ServiceError as problem:
        if len(code) <= LARGEST or not isinstance(problem.error, ConnectionGone):
            raise
        mend = f"the package is larger than the {LARGEST} bytes of the default limits.frame-size; leave files out of it"
        raise ServiceError(problem.service, problem.error, f"{mend} (see .cocaineignore)") from problem


async def _put_back(job: Job, app: str, before: dict[str, bytes | None], problem: Exception) -> None:
    """What storage held of the app before; the problem's text says so when that fails too."""
    storage = Storage(job.platform)
    try:
        with job.console.step(f'Putting back what was there of "{app}"'):
            for collection, blob in before.items():
                if blob is None:
                    await storage.remove(collection, app)
                else:
                    await storage.write(collection, app, blob, _TAGS)
    except ToolError as second:
        problem.args = (
            f'{problem}; the earlier version could not be put back either ({second}): upload "{app}" again '
            "before it is started",
        )


COMMANDS = (
    Command(
        ("app", "upload"), "Upload an app: a folder, a package, or its manifest alone.", upload,
        (
            option("path", metavar="PATH", nargs="?", help="the app's folder; the current one by default"),
            name_of("App", required=False),
            option("--manifest", metavar="MANIFEST", help="path of a JSON file, or the JSON itself"),
            option("--package", metavar="ARCHIVE", help="a ready tar archive; needs -n and --manifest"),
            option("--docker_address", metavar="ADDRESS", help="build an image there (not in this version)"),
            option("--registry", metavar="REGISTRY", help="where to push the image (not in this version)"),
            option("--manifest-only", action="store_true", help="write the manifest and leave the code; needs -n"),
        ),
        details="The app's name is the folder's unless given. Without --manifest the file of the tree that looks most "
        "like one is taken (its name begins with `manifest`). Links are followed. `.git` and what `.cocaineignore` "
        "names (the rules of `.gitignore`) are left out. If storing fails half-way the earlier version is put back. "
        "Waits at least 120 seconds for each answer.",
    ),
)  # fmt: skip
