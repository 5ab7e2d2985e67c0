"""
A small virtual machine with a kernel of its own, for what the kernel of this host lacks; about twenty seconds a run.

Debian's kernel package is fetched once and unpacked into a cache folder; nothing is installed. The machine sees this
host's files read-only, under a layer in its own memory, and so runs this checkout with this Python.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cocaine_tx-vm"
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "netfs", "fscache",
    "9pnet", "9pnet_virtio", "9p", "overlay", "veth", "crc32c_generic", "libcrc32c", "nf_defrag_ipv4",
    "nf_defrag_ipv6", "nf_conntrack", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc",
)  # fmt: skip
#: Printed by the machine before and after what it runs.
BEGIN, END = "=== begin", "=== end"

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /host /top /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for pass in 1 2 3; do for module in /modules/*.ko; do /bin/busybox insmod $module 2>/dev/null; done; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host ||
    /bin/busybox poweroff -f
/bin/busybox mount -t tmpfs tmpfs /top
/bin/busybox mkdir /top/up /top/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/top/up,workdir=/top/work overlay /root ||
    /bin/busybox poweroff -f
for folder in proc sys dev; do /bin/busybox mount --bind /$folder /root/$folder; done
/bin/busybox mkdir -p /root/run/netns
/bin/busybox mount -t tmpfs tmpfs /root/run
/bin/busybox ip link set lo up
echo "BEGIN"
/bin/busybox chroot /root /bin/sh -c 'COMMAND'
echo "END $?"
/bin/busybox poweroff -f
"""


def missing() -> str:
    """Why no machine can be run here; empty when one can."""
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("ip", "iproute2"),
        ("ipvsadm", "ipvsadm"), ("apt-get", "apt"), ("dpkg-deb", "dpkg"),
    ):  # fmt: skip
        if shutil.which(program) is None:
            return f"a virtual machine needs {program} (package {package})"
    return ""


def kernel() -> tuple[Path, Path]:
    """The kernel and the folder of its modules, fetched if they are not here yet."""
    unpacked = CACHE / "kernel"
    if not unpacked.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            shown = _run("apt-cache", "depends", "linux-image-amd64")
            package = next(line.split()[1] for line in shown.splitlines() if line.strip().startswith("Depends:"))
            _run("apt-get", "download", "-q", package, cwd=folder)
            _run("dpkg-deb", "-x", str(next(Path(folder).glob("*.deb"))), f"{folder}/kernel")
            os.rename(f"{folder}/kernel", unpacked)
    return next((unpacked / "boot").glob("vmlinuz-*")), next((unpacked / "lib/modules").iterdir())


def _run(*words: str, cwd: str | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _archive(folder: Path, modules: Path, command: str) -> Path:
    """The first root of the machine."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "modules").mkdir()
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "busybox")
    found = {path.name.split(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    for module in MODULES:
        if module in found:
            _unpack(found[module], root / "modules" / f"{module}.ko")
    init = root / "init"
    init.write_text(INIT.replace("COMMAND", command).replace('"BEGIN"', f'"{BEGIN}"').replace('"END ', f'"{END} '))
    init.chmod(0o755)
    archive = folder / "initramfs"
    with archive.open("wb") as file:
        listing = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=listing.encode(), stdout=file,
                       stderr=subprocess.DEVNULL, check=True)  # fmt: skip
    return archive


def _unpack(packed: Path, target: Path) -> None:
    if packed.suffix == ".ko":
        shutil.copy(packed, target)
    else:
        with target.open("wb") as file:
            subprocess.run([{".xz": "xz", ".zst": "zstd"}[packed.suffix], "-dc", str(packed)], stdout=file, check=True)


def run(*words: str, timeout: float = 240.0) -> tuple[int, str]:
    """
    Run a command in a new machine, in this checkout; its exit status and what it printed.

    :raises RuntimeError: the machine did not end in time; its last words are in the reason.
    """
    try:
        return _boot(words, timeout)
    except subprocess.TimeoutExpired as stalled:
        said = (stalled.stdout or b"").decode("utf-8", "replace")
        raise RuntimeError(f"the machine has not ended after {timeout:g} s; its last words:\n{said[-3000:]}") from None


def _boot(words: tuple[str, ...], timeout: float) -> tuple[int, str]:
    image, modules = kernel()
    inside = f"cd {shlex.quote(str(ROOT))} && PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 HOME=/tmp {shlex.join(words)}"
    if "'" in inside:
        raise ValueError("the command must not need quotes")
    with tempfile.TemporaryDirectory() as folder:
        archive = _archive(Path(folder), modules, inside)
        done = subprocess.run(
            [
                "qemu-system-x86_64", "-m", "1024", "-smp", "2", "-nographic", "-no-reboot", "-nodefaults",
                "-serial", "stdio", "-kernel", str(image), "-initrd", str(archive),
                "-append", "console=ttyS0 quiet panic=-1",
                "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
        )  # fmt: skip
    said = done.stdout.decode("utf-8", "replace").replace("\r", "")
    before, begun, rest = said.partition(BEGIN + "\n")
    if not begun or END not in rest:
        raise RuntimeError(f"the machine did not come up or did not end:\n{said[-3000:]}")
    output, _, status = rest.rpartition(END)
    return int(status.split()[0]), output


if __name__ == "__main__":
    # By hand: python -m tests.integration.vm.machine ipvsadm -Ln
    status, output = run(*(sys.argv[1:] or ["uname", "-a"]))
    print(output)
    sys.exit(status)
