"""An app into storage: its bytes, its name, its manifest, and what happens when it fails half-way."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cocaine_tx.daemon.settings import Limits
from cocaine_tx.errors import ConnectionGone, InvalidArgument
from cocaine_tx.tool import upload
from cocaine_tx.tool.upload import LARGEST
from cocaine_tx.wire.frames import pack, unpack

from .stage import Stage


class Uploading(TestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))
        self.folder = Path(self.mktemp()) / "hello"
        self.folder.mkdir(parents=True)
        self.write("manifest.json", '{"slave": "app.py", "environment": {"A": "b"}}')
        os.chmod(self.write("app.py", "print()\n"), 0o755)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def names(self, app: str = "hello") -> list[str]:
        """What the stored archive holds."""
        with tarfile.open(fileobj=io.BytesIO(unpack(self.stage.storage.blob("apps", app)))) as tar:
            return tar.getnames()


class Folders(Uploading):
    async def test_layout(self) -> None:
        """Code is a raw msgpack string around a tar.gz, the manifest a map, both tagged; the code is written first."""
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(seen.status, 0)
        code, tags = self.stage.storage.objects["apps", "hello"]
        archive = unpack(code)
        self.assertEqual(tags, ("app",))
        self.assertEqual(code, b"\xda" + len(archive).to_bytes(2, "big") + archive)
        self.assertEqual(archive[:2], b"\x1f\x8b")
        self.assertEqual(
            self.stage.storage.objects["manifests", "hello"],
            (pack({"slave": "app.py", "environment": {"A": "b"}}), ("app",)),
        )
        writes = [call[1] for call in self.stage.storage.calls if call[0] == "write"]
        self.assertEqual(writes, ["apps", "manifests"])
        self.assertEqual(seen.out, f"Application `hello` has been uploaded ({len(archive)} bytes)\n")
        self.assertEqual(
            seen.err,
            f'[✔] Uploading code of "hello" ({len(archive)} bytes)\n[✔] Uploading manifest of "hello"\n',
        )

    async def test_same_folder_same_bytes(self) -> None:
        """The same folder is the same archive whoever uploads it and whenever."""
        await self.stage.tool("app", "upload", str(self.folder))
        await self.stage.tool("app", "upload", str(self.folder), "-n", "again")
        self.assertEqual(self.stage.storage.blob("apps", "hello"), self.stage.storage.blob("apps", "again"))
        archive = unpack(self.stage.storage.blob("apps", "hello"))
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as tar:
            owners = {(member.uid, member.gid, member.uname, member.gname) for member in tar}
        self.assertEqual(owners, {(0, 0, "", "")})

    async def test_what_is_packed(self) -> None:
        """Everything but .git and what .cocaineignore names is packed, sorted, executable files staying so."""
        self.write(".git/config", "secret")
        self.write("lib/.git/config", "secret")
        self.write("lib/a.py", "")
        self.write("lib/a.pyc", "")
        self.write("keep.pyc", "")
        self.write("build/x", "")
        self.write(".hidden", "")
        self.write(".cocaineignore", "# compiled\n*.pyc\n!/keep.pyc\n/build/\n")
        (self.folder / "app.py").chmod(0o755)
        os.symlink("a.py", self.folder / "lib" / "link.py")
        await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(
            self.names(),
            [".hidden", "app.py", "keep.pyc", "lib", "lib/a.py", "lib/link.py", "manifest.json"],
        )
        with tarfile.open(fileobj=io.BytesIO(unpack(self.stage.storage.blob("apps", "hello")))) as tar:
            self.assertEqual(tar.getmember("app.py").mode & 0o111, 0o111)
            self.assertTrue(tar.getmember("lib/link.py").isfile())

    async def test_bad_links(self) -> None:
        """Links to nowhere and in a circle are complained about by name; nothing is written."""
        os.symlink("absent", self.folder / "broken")
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual((seen.status, seen.err), (22, "'broken' is a link that leads nowhere\n"))
        os.remove(self.folder / "broken")
        os.symlink(".", self.folder / "circle")
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual((seen.status, seen.err), (22, "'circle/': links lead round in a circle\n"))
        self.assertEqual(self.stage.storage.calls, [])

    async def test_best_manifest(self) -> None:
        """The manifest at the top wins, and manifest.json over other names there; below is better than none."""
        self.write("manifest-old", '{"slave": "old"}')
        self.write("deep/manifest.json", '{"slave": "deep"}')
        await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(unpack(self.stage.storage.blob("manifests", "hello"))[b"slave"], b"app.py")
        os.remove(self.folder / "manifest.json")
        await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(unpack(self.stage.storage.blob("manifests", "hello"))[b"slave"], b"old")
        os.remove(self.folder / "manifest-old")
        await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(unpack(self.stage.storage.blob("manifests", "hello"))[b"slave"], b"deep")

    async def test_given_manifest(self) -> None:
        """A manifest may be named or written out."""
        await self.stage.tool("app", "upload", str(self.folder), "--manifest", '{"slave": "inline"}')
        self.assertEqual(self.stage.storage.blob("manifests", "hello"), pack({"slave": "inline"}))

    async def test_no_manifest(self) -> None:
        """Without a manifest nothing is uploaded."""
        os.remove(self.folder / "manifest.json")
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(seen.status, 22)
        self.assertIn("There is no manifest in", seen.err)

    async def test_bad_manifest(self) -> None:
        """A manifest that is no JSON, or no map, is complained about with its place; nothing is written."""
        self.write("manifest.json", '{"slave": }')
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(seen.status, 22)
        self.assertIn("manifest.json' is not JSON: Expecting value (line 1, column 11)\n", seen.err)
        self.write("manifest.json", "[]")
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual((seen.status, seen.err), (22, "A manifest must be a map, not a list\n"))
        self.assertEqual(self.stage.storage.calls, [])

    async def test_useless_manifest(self) -> None:
        """A manifest without the program to start is stored with a warning."""
        self.write("manifest.json", "{}")
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual(seen.status, 0)
        self.assertIn('Warning: the manifest of "hello" has no "slave"', seen.err)

    async def test_program_that_cannot_start(self) -> None:
        """A program that is not there, or not executable, is worth a warning: later only the crash log would say so."""
        for slave, mode, words in (
            ("./app.py", 0o755, ""),
            ("app.py", 0o644, "'app.py', which the manifest names as \"slave\", is not executable (chmod +x)"),
            ("absent.py", 0o755, "'absent.py', which the manifest names as \"slave\", is not among the files"),
            ("/bin/elsewhere", 0o755, ""),
        ):
            (self.folder / "app.py").chmod(mode)
            self.write("manifest.json", json.dumps({"slave": slave}))
            seen = await self.stage.tool("app", "upload", str(self.folder))
            self.assertEqual(seen.status, 0)
            self.assertEqual(seen.err.startswith(f"Warning: {words}: workers will not start\n"), bool(words), seen.err)

    def test_largest(self) -> None:
        """The size from which a package is warned of is what a node takes with its settings as they come."""
        self.assertEqual(LARGEST, Limits().frame_size - 4096)

    async def test_folder_called_app(self) -> None:
        """A folder called as storage's own word for apps is refused with the reason, before anything is sent."""
        folder = self.folder.rename(self.folder.parent / "app")
        seen = await self.stage.tool("app", "upload", str(folder))
        said = '"app" cannot be a name here: storage lists apps under that word; choose another\n'
        self.assertEqual((seen.status, seen.out, seen.err), (22, "", said))
        self.assertEqual(self.stage.storage.calls, [])
        self.assertEqual((await self.stage.tool("app", "upload", str(folder), "-n", "mine")).status, 0)

    async def test_no_folder(self) -> None:
        """A path that is a file, or nothing, is complained about."""
        for path in (str(self.folder / "app.py"), "absent"):
            seen = await self.stage.tool("app", "upload", path)
            self.assertEqual(seen.status, 22)
            self.assertIn("is no folder", seen.err)


class Packages(Uploading):
    def package(self, blob: bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(blob)
        return path

    async def test_package(self) -> None:
        """A ready archive is stored as it is."""
        with tarfile.open(self.folder / "p.tar.gz", "w:gz") as tar:
            tar.add(self.folder / "app.py", "app.py")
        blob = (self.folder / "p.tar.gz").read_bytes()
        seen = await self.stage.tool(
            "app", "upload", "--package", str(self.folder / "p.tar.gz"), "-n", "x", "--manifest", '{"slave": "s"}'
        )
        self.assertEqual(seen.status, 0)
        self.assertEqual(self.stage.storage.blob("apps", "x"), pack(blob))

    async def test_bad_packages(self) -> None:
        """What is no archive, or only a part of one, is never stored."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            info = tarfile.TarInfo("big")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        for blob in (b"", b"no archive at all", made.getvalue()[:50_000]):
            seen = await self.stage.tool(
                "app", "upload", "--package", self.package(blob), "-n", "x", "--manifest", '{"slave": "s"}'
            )
            self.assertEqual(seen.status, 22)
            self.assertIn("is not a whole tar archive", seen.err)
            self.assertEqual(seen.err.count("\n"), 1, seen.err)
        self.assertEqual(self.stage.storage.calls, [])

    async def test_package_needs(self) -> None:
        """A package needs a name and a manifest."""
        seen = await self.stage.tool("app", "upload", "--package", "p", "--manifest", "m")
        self.assertEqual((seen.status, seen.err), (22, "Please specify application name\n"))
        seen = await self.stage.tool("app", "upload", "--package", "p", "-n", "x")
        self.assertEqual((seen.status, seen.err), (22, "Please specify manifest file (--manifest)\n"))

    async def test_exclusive(self) -> None:
        """A folder and a package at once are a wrong usage, 64; so is a package with docker."""
        seen = await self.stage.tool("app", "upload", ".", "--package", "p")
        words = "Wrong usage: option {} and {} are mutual exclusive, you can only use one\n"
        self.assertEqual((seen.status, seen.err), (64, words.format("PATH", "--package")))
        for option, name in (("--docker_address", "--docker"), ("--registry", "--registry")):
            seen = await self.stage.tool("app", "upload", "--package", "p", option, "a")
            self.assertEqual((seen.status, seen.err), (64, words.format("--package", name)))

    async def test_docker(self) -> None:
        """Building an image is refused before anything is written."""
        seen = await self.stage.tool("app", "upload", str(self.folder), "--docker_address", "http://x")
        self.assertEqual(seen.status, 128)
        self.assertIn("needs docker", seen.err)
        self.assertEqual(self.stage.storage.calls, [])

    async def test_manifest_only(self) -> None:
        """A manifest alone leaves the code as it is."""
        self.stage.storage.put("apps", "x", b"code", "app")
        seen = await self.stage.tool(
            "app", "upload", "--manifest-only", "-n", "x", "--manifest", '{"slave": "s"}', "--json"
        )
        self.assertEqual(json.loads(seen.out), {"app": "x", "size": None, "status": "uploaded"})
        self.assertEqual(self.stage.storage.blob("apps", "x"), pack(b"code"))
        self.assertEqual(self.stage.storage.blob("manifests", "x"), pack({"slave": "s"}))


class HalfWay(Uploading):
    def setUp(self) -> None:
        super().setUp()
        self.storage = self.stage.storage
        self.storage.put("apps", "hello", b"old code", "app")
        self.storage.put("manifests", "hello", {"slave": "old"}, "app")
        self.before = dict(self.storage.objects)

    async def upload(self) -> str:
        seen = await self.stage.tool("app", "upload", str(self.folder))
        self.assertEqual((seen.status, seen.out), (128, ""))
        return seen.err

    async def test_manifest_refused(self) -> None:
        """When the manifest cannot be written, the earlier code is back, byte for byte."""
        self.storage.broken["write", "manifests"] = InvalidArgument("disk is full")
        said = await self.upload()
        self.assertEqual(self.storage.objects, self.before)
        self.assertIn('[✘] Uploading manifest of "hello"\n', said)
        self.assertIn('[✔] Putting back what was there of "hello"\n', said)
        self.assertIn('Error in service "storage" - disk is full [22]\n', said)

    async def test_code_refused(self) -> None:
        """When storage refuses the code, nothing else is tried."""
        self.storage.broken["write", "apps"] = InvalidArgument("disk is full")
        await self.upload()
        self.assertEqual(self.storage.objects, self.before)
        self.assertEqual([call[:2] for call in self.storage.calls if call[0] == "write"], [("write", "apps")])

    async def test_new_app(self) -> None:
        """A new app whose manifest cannot be written leaves no code behind."""
        self.storage.objects.clear()
        self.storage.broken["write", "manifests"] = InvalidArgument("disk is full")
        await self.upload()
        self.assertEqual(self.storage.objects, {})

    async def test_doubt(self) -> None:
        """When nobody knows whether the manifest was written, both are put back."""
        self.storage.broken["write", "manifests"] = [ConnectionGone()]
        await self.upload()
        self.assertEqual(self.storage.objects, self.before)
        self.assertEqual([call[1] for call in self.storage.calls if call[0] == "write"][2:], ["apps", "manifests"])

    async def test_too_large(self) -> None:
        """Storage hangs up on a package that is too large for it; the user is told why that may be."""
        self.storage.broken["write", "apps"] = [ConnectionGone("End of file")]
        self.assertNotIn("the package is larger", await self.upload())
        self.storage.broken["write", "apps"] = [ConnectionGone("End of file")]
        self.patch(upload, "LARGEST", 100)
        said = (await self.upload()).splitlines()[-1]
        self.assertIn("End of file [2]; the package is larger than the 100 bytes of the default limits", said)
        self.assertEqual(self.storage.objects, self.before)

    async def test_cannot_put_back(self) -> None:
        """When the earlier code cannot be put back either, the user is told what to do."""
        self.storage.broken["write", "manifests"] = InvalidArgument("disk is full")
        self.storage.broken["write", "apps"] = [None, InvalidArgument("disk is broken")]
        said = await self.upload()
        self.assertIn("the earlier version could not be put back either", said)
        self.assertIn('upload "hello" again before it is started\n', said)

    async def test_earlier_unreadable(self) -> None:
        """Without knowing what is there nothing is overwritten."""
        self.storage.broken["read", "apps"] = InvalidArgument("disk is broken")
        await self.upload()
        self.assertEqual(self.storage.objects, self.before)
