# ruff: noqa: D103 - names of tests are sentences
"""up and down of a second, real cluster: from each half-finished state, and leaving nothing.

In network, mount and process namespaces of its own, so it does not meet the machine's cluster. Needs root and what
make e2e-up builds; some minutes on two cores: .venv/bin/python -m pytest dev/cluster/tests
"""

import os
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flowagg_cluster import tools
from flowagg_cluster.layout import HOST_LINK, Layout
from flowagg_cluster.volumes import FOLDERS
from flowagg_stack.provision import cache_directory

_POD = string.Template("""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: one}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  containers: [{name: one, image: $image, imagePullPolicy: Never, volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: one}}]
""")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or not all(module.is_built for module in tools.MODULES),
        reason="needs Linux, root and make e2e-up's programs",
    ),
]


@dataclass(frozen=True)
class World:
    """Namespaces, held open by a process of the machine, and a state and a cache folder."""

    process: int
    folder: Path

    @property
    def layout(self) -> Layout:
        """The folders of the cluster in here."""
        return Layout(self.folder / "state/flow-aggregator/cluster", self.cache / "cluster-images")

    @property
    def cache(self) -> Path:
        """The programs are the machine's; images are not."""
        return self.folder / "cache/flow-aggregator"

    def command(self, *words: str) -> list[str]:
        """A command line that runs words in here."""
        return ["nsenter", "--target", str(self.process), "--net", "--mount", "--pid", *words]

    def environment(self) -> dict[str, str]:
        """Without the KUBECONFIG of whoever runs the tests."""
        given = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        return given | {"XDG_STATE_HOME": str(self.folder / "state"), "XDG_CACHE_HOME": str(self.folder / "cache")}

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run words in here, to their end."""
        done = subprocess.run(
            self.command(*words), env=self.environment(), capture_output=True, text=True, timeout=400, check=False
        )
        assert not check or done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
        return done

    def cluster(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run python -m flowagg_cluster in here."""
        return self.run(sys.executable, "-m", "flowagg_cluster", *words, check=check)

    def pods_run(self) -> bool:
        """Whether the cluster is up, by its own word and by a request through Traefik."""
        answer = self.run("curl", "--silent", "--output", "/dev/null", "http://10.207.0.2/", check=False)
        return self.cluster("status", check=False).returncode == 0 and answer.returncode == 0

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Run kubectl in here."""
        line = self.command(str(tools.program("kubectl")), f"--kubeconfig={self.layout.kubeconfig}", *words)
        return subprocess.run(line, input=text, capture_output=True, text=True, check=True, timeout=60).stdout

    def node(self) -> int:
        """Process id, in here, of the node's process 1."""
        found = self.run("pgrep", "--newest", "--full", f"flowagg_cluster.node {self.layout.state} ").stdout.split()
        return int(found[0])

    def left(self) -> list[str]:
        """What there is of a cluster."""
        found = [word for word in (str(self.layout.state),) if Path(word).exists()]
        found += self.run("pgrep", "--list-full", "--full", str(self.layout.state), check=False).stdout.splitlines()
        found += [line for line in self.run("ip", "-brief", "link").stdout.splitlines() if not line.startswith("lo ")]
        found += self.run("ip", "route").stdout.splitlines()
        found += self.run("nft", "list", "tables").stdout.splitlines()
        found += [line for line in self.run("cat", "/proc/mounts").stdout.splitlines() if str(self.folder) in line]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{self.layout.cgroup}")]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cluster")
    namespaces = ("--net", "--mount", "--propagation=private", "--mount-proc", "--pid", "--fork", "--kill-child")
    keeper = subprocess.Popen(["unshare", *namespaces, "sleep", "infinity"])
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
    wait_for(lambda: bool(children.read_text().split()), "the namespaces")
    world = World(int(children.read_text().split()[0]), folder)
    world.run("ip", "link", "set", "lo", "up")
    world.cache.mkdir(parents=True)
    for module in tools.MODULES:
        (world.cache / module.directory.name).symlink_to(cache_directory() / module.directory.name)
    yield world
    world.cluster("down", check=False)
    keeper.kill()
    keeper.wait()
    shutil.rmtree(folder)


def test_up_starts_a_cluster_and_down_leaves_nothing_of_it(world: World) -> None:
    world.cluster("up")
    assert world.pods_run()
    assert "up already" in world.cluster("up").stderr
    assert world.left()
    world.cluster("down")
    assert world.left() == []


def test_down_without_a_cluster_is_no_error(world: World) -> None:
    world.cluster("down")
    assert world.cluster("status", check=False).returncode == 1


def test_up_goes_on_from_an_up_that_was_killed(world: World) -> None:
    # The node stays, half made.
    process = subprocess.Popen(world.command(sys.executable, "-m", "flowagg_cluster", "up"), env=world.environment())
    wait_for((world.layout.logs / "etcd.log").exists, "etcd")
    world.run("pkill", "--signal", "KILL", "--full", "flowagg_cluster up")
    process.wait()
    world.cluster("up")
    assert world.pods_run()


def test_up_goes_on_from_a_node_that_was_killed(world: World) -> None:
    world.run("kill", "-KILL", str(world.node()))
    world.cluster("up")
    assert world.pods_run()


def test_up_goes_on_from_a_node_without_its_files(world: World) -> None:
    world.layout.kubeconfig.unlink()
    shutil.rmtree(world.layout.pki)
    world.cluster("up")
    assert world.pods_run()


def test_a_claim_gets_a_volume_and_gives_it_back(world: World) -> None:
    folders = world.layout.state / "var-lib" / FOLDERS.name
    world.kubectl("apply", "--filename=-", text=_POD.substitute(image=tools.PAUSE.image))
    world.kubectl("wait", "pod/one", "--for=condition=Ready", "--timeout=60s")
    assert [path.stat().st_gid for path in folders.iterdir()] == [2000]
    world.kubectl("delete", "pod/one", "persistentvolumeclaim/one", "--now")
    wait_for(lambda: world.kubectl("get", "persistentvolumes", "--output=name") == "", "the volume's end")
    assert list(folders.iterdir()) == []


def test_a_component_that_is_killed_comes_back(world: World) -> None:
    before = world.run("pgrep", "--exact", "etcd").stdout
    world.run("pkill", "--signal", "KILL", "--exact", "etcd")
    wait_for(lambda: world.run("pgrep", "--exact", "etcd", check=False).stdout not in {"", before}, "etcd")
    wait_for(world.pods_run, "the cluster")


def test_down_ends_a_cluster_that_hangs(world: World) -> None:
    world.run("kill", "-STOP", str(world.node()))
    world.run("pkill", "--signal", "STOP", "kube")
    world.cluster("down")
    assert world.left() == []


def test_up_goes_on_from_a_link_and_a_folder_that_are_left_over(world: World) -> None:
    world.run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "other")
    world.layout.etcd.mkdir(parents=True)
    world.cluster("up")
    assert world.pods_run()
    world.cluster("down")
    assert world.left() == []


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
