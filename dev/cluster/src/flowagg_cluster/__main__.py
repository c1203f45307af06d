"""python -m flowagg_cluster: up (make e2e-up), down (make e2e-down), status, image, standins, load, env, enter."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from flowagg.errors import FlowaggError
from rich.console import Console

from flowagg_cluster import cluster, foreign, images, services, standins, tools
from flowagg_cluster.layout import NETWORK, Layout, default_layout
from flowagg_cluster.namespaces import enter_command


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the cluster."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    try:
        status = _run(given, default_layout(), say)
    except FlowaggError as error:
        say(f"\nIt cannot go on:\n{error}")
        for note in getattr(error, "__notes__", []):
            say(note)
        status = 2
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowagg-cluster", description="A real single-node Kubernetes on this machine, without Docker."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="install and build what is missing, start nothing")
    build.add_argument("programs", nargs="*", help="these alone, such as helm helm3; default: all, and what they need")
    commands.add_parser("up", help="bring the cluster up, from any state")
    down = commands.add_parser("down", help="take it away: processes, namespaces, links, mounts, rules, state")
    down.add_argument("--images", action="store_true", help="the images that it keeps between starts, too")
    commands.add_parser("status", help="show nodes and pods; status 0 when all is up")
    image = commands.add_parser("image", help="build services' images from the Dockerfile and hand them to the node")
    image.add_argument("services", nargs="*", help="default: all of them")
    image.add_argument("--base", help="an image with Python (default: one made of Debian packages)")
    image.add_argument("--tag", default="dev", help="the images' tag (default: %(default)s)")
    commands.add_parser("standins", help="make the upstream images without a registry, for the node")
    load = commands.add_parser("load", help="hand archives, as docker save writes them, to the node")
    load.add_argument("archives", nargs="+")
    commands.add_parser("env", help='print KUBECONFIG and PATH for eval "$(...)"')
    enter = commands.add_parser(
        "enter", help="run a command inside the node, such as: enter pkill -STOP kube-apiserver"
    )
    enter.add_argument("words", nargs=argparse.REMAINDER, help="default: a shell")
    return parser


def _run(given: argparse.Namespace, layout: Layout, say: Callable[[str], None]) -> int:
    theirs = foreign.named(layout, os.environ)
    if theirs is not None and given.command in {"up", "down", "status", "image", "standins"}:
        return _run_foreign(given.command, theirs, say)
    match given.command:
        case "build" if given.programs:
            tools.build([tools.module_of(name) for name in given.programs], say)
        case "build":
            cluster.prepare(layout, say)
        case "up":
            cluster.up(layout, say)
        case "down":
            cluster.down(layout, with_images=given.images)
        case "status":
            return 0 if cluster.status(layout, print) else 1
        case "image":
            services.provide(layout, given.services or services.services(), say, base=given.base, tag=given.tag)
        case "standins":
            standins.provide(layout, say)
        case "load":
            for archive in given.archives:
                images.load_archive(layout, archive)
        case "env":
            print(_exports(layout, theirs))
        case "enter":
            command = enter_command(layout, given.words or ["bash"])
            os.execvp(command[0], command)  # noqa: S606 - the command is the user's
    return 0


def _exports(layout: Layout, theirs: str | None) -> str:
    line = f'export KUBECONFIG="{theirs or layout.kubeconfig}" PATH="{tools.search_path()}"'
    # A proxy would not know the way to the cluster's addresses.
    return line if theirs else f'{line} NO_PROXY="${{NO_PROXY:+$NO_PROXY,}}{NETWORK}"'


def _run_foreign(command: str, kubeconfig: str, say: Callable[[str], None]) -> int:
    match command:
        case "up":
            foreign.look_at(kubeconfig, say)
        case "down":
            say(f"KUBECONFIG names a cluster of yours ({kubeconfig}): left alone. Unset it to end this machine's own.")
        case "status":
            foreign.look_at(kubeconfig, say)
            print(foreign.kubectl(kubeconfig, "get", "nodes,pods", "--all-namespaces", "--output=wide").rstrip())
        case "image" | "standins":
            say(foreign.images(kubeconfig))
    return 0


if __name__ == "__main__":
    main()
