"""The ``app`` commands, upload apart (`upload`): an app in storage and on the node."""

from __future__ import annotations

from contextlib import suppress

from ..errors import AlreadyStarted, CocaineError, InvalidArgument, NotFound, NotRunning
from .command import Command, Job, name_of, option
from .console import Data, Done, Result
from .documents import decode, plain
from .exits import Refused, ServiceError, ToolError, WrongValue
from .info import REPORT, app_names
from .platform import Service
from .storage import Storage


async def listed(job: Job) -> Result:
    """The apps in storage."""
    return Data(await Storage(job.platform).find("manifests", "app"))


async def view(job: Job) -> Result:
    """An app's manifest."""
    name = job.named("application")
    return Data(decode(await Storage(job.platform).read("manifests", name), f'Manifest of "{name}"'))


async def remove(job: Job) -> Result:
    """An app out of storage; what runs goes on running."""
    name = job.named("application")
    storage = Storage(job.platform)
    with job.console.step(f'Removing application "{name}"'):
        if name not in await storage.find("manifests", "app"):
            raise Refused(f'Application "{name}" does not exist')
        # The manifest first: code without a manifest is no app, a manifest without code is a broken one.
        await storage.remove("manifests", name)
        try:
            await storage.remove("apps", name)
        except ToolError as problem:
            job.console.warn(f"the code stays in storage: {problem}")
    return None


async def start(job: Job) -> Result:
    """Start an app and wait until the node says that it runs."""
    name, profile = job.named("application"), _profile(job)
    node = await job.platform.service("node")
    with job.console.step(f'Starting application "{name}"'):
        await _told(job, node, "start_app", name, profile)
    return _done(name, "started", profile)


async def _told(job: Job, node: Service, method: str, name: str, *profile: str) -> None:
    """Tell the node to run something; the complaint of one that cannot also says what to do."""
    try:
        await node.call(method, name, *profile)
    except ServiceError as problem:
        mend = ""
        # The node's own words are what matters; that we cannot say more is not worth another complaint.
        with suppress(ToolError):
            mend = await _mend(job, node, problem.error, name, *profile)
        raise ServiceError(problem.service, problem.error, mend) from problem


async def _mend(job: Job, node: Service, error: CocaineError, name: str, *profile: str) -> str:
    if isinstance(error, NotFound):
        if missing := await _missing(job, name, *profile):
            return missing
        if name not in await Storage(job.platform).find("apps", "app"):
            return f'there is no code of "{name}" in storage: see cocaine-tool app upload'
    elif isinstance(error, AlreadyStarted):
        report = plain(await node.value("info", name))
        if report.get("state") == "broken":
            cause = report.get("cause", "no cause given")
            return f"the cause: {cause}; when it is mended, see cocaine-tool app restart --profile"
    return ""


async def _missing(job: Job, name: str, *profiles: str) -> str:
    """What has to be uploaded before the app can be started, or nothing."""
    storage = Storage(job.platform)
    for collection, key, what, command in (
        ("manifests", name, "application", "app upload"),
        *(("profiles", profile, "profile", "profile upload") for profile in profiles),
    ):
        if await storage.read_or_none(collection, key) is None:
            return f'there is no {what} "{key}" in storage: see cocaine-tool {command}'
    return ""


async def stop(job: Job) -> Result:
    """Stop an app and wait until it has stopped."""
    name = job.named("application")
    node = await job.platform.service("node")
    with job.console.step(f'Stopping application "{name}"'):
        await node.call("pause_app", name)
    return Done(f"Application `{name}` has been stopped", {"app": name, "status": "stopped"})


async def restart(job: Job) -> Result:
    """Restart an app: without losing a request where the node can, else by a stop and a start."""
    name = job.named("application")
    node = await job.platform.service("node")
    with job.console.step(f'Restarting application "{name}"'):
        profile = job.args.profile or await _profile_of(node, name)
        if not await _replaced(job, node, name):
            if missing := await _missing(job, name, profile):
                raise Refused(f'{missing}; application "{name}" is left as it is')
            try:
                await node.call("pause_app", name)
            except ServiceError as problem:
                # It may not run, or be broken: the start will tell.
                job.console.detail(str(problem))
            await node.call("start_app", name, profile)
    return _done(name, "restarted", profile)


async def _replaced(job: Job, node: Service, name: str) -> bool:
    """Let the node replace the running app, if it knows how and the app runs."""
    if not node.offers("restart_app"):
        return False
    try:
        await _told(job, node, "restart_app", name, *([job.args.profile] if job.args.profile else []))
    except ServiceError as problem:
        if isinstance(problem.error, NotRunning):
            return False
        raise
    return True


async def _profile_of(node: Service, name: str) -> str:
    try:
        report = plain(await node.value("info", name, REPORT))
        return str(report["profile"]["name"])
    except ServiceError as problem:
        mend = "name a profile by --profile to start it" if isinstance(problem.error, InvalidArgument) else ""
        raise ServiceError(problem.service, problem.error, mend) from problem
    except (KeyError, TypeError) as problem:
        raise Refused(f'the node does not say which profile "{name}" has; name one by --profile') from problem


async def check(job: Job) -> Result:
    """Whether an app runs: the exit code is the answer."""
    name = job.named("application")
    node = await job.platform.service("node")
    if name not in await app_names(node):
        raise Refused("Not running")
    report = plain(await node.value("info", name))
    state = report.get("state") if isinstance(report, dict) else None
    if state == "broken":
        raise Refused(f"Broken: {report.get('cause', 'no cause given')}")
    job.console.detail(f"Application `{name}` is {state}")
    return None


async def import_image(job: Job) -> Result:
    """Make an app out of a container image."""
    raise Refused("Images cannot be imported by this tool yet: needs docker")


def _profile(job: Job) -> str:
    if not job.args.profile:
        raise WrongValue("Please specify profile name")
    return str(job.args.profile)


def _done(name: str, status: str, profile: str) -> Done:
    return Done(
        f"Application `{name}` has been {status} with profile `{profile}`",
        {"app": name, "status": status, "profile": profile},
    )


_NAME = name_of("App", required=False)
_PROFILE = option("-r", "--profile", metavar="PROFILE", help="profile name")
COMMANDS = (
    Command(("app", "list"), "List the apps in storage.", listed),
    Command(("app", "view"), "Show an app's manifest.", view, (_NAME,)),
    Command(("app", "remove"), "Remove an app from storage.", remove, (_NAME,)),
    Command(("app", "start"), "Start an app with a profile and wait until it runs.", start, (_NAME, _PROFILE)),
    Command(("app", "stop"), "Stop an app and wait until it has stopped.", stop, (_NAME,), aliases=("pause",)),
    Command(
        ("app", "restart"), "Restart an app with its code and profile as they are in storage now.", restart,
        (_NAME, _PROFILE),
        details="Without a profile the app keeps the one it has. A node of this platform boots the new version beside "
        "the old one and switches when it answers: no request is lost, and if the new one does not boot the old one "
        "stays. On other nodes it is a stop and a start.",
    ),
    Command(
        ("app", "check"), "Tell by the exit code whether an app runs.", check, (_NAME,),
        details="0 if the node has the app, 128 if it has not or if it is broken. Says nothing on success.",
    ),
    Command(
        ("app", "import"), "Make an app out of a container image (not in this version).", import_image,
        (
            option("path", metavar="PATH", help="folder with the manifest"),
            _NAME,
            option("--manifest", metavar="MANIFEST", help="path of the manifest"),
            option("--container_url", metavar="URL", required=True, help="the image"),
            option("--docker_address", metavar="ADDRESS", required=True, help="the docker engine"),
            option("--registry", metavar="REGISTRY", help="where to push the image"),
        ),
    ),
)  # fmt: skip
