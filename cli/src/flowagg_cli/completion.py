"""`flowagg completion`: what a shell needs to complete the command's words."""

import argparse

import shtab


def register(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", parser: argparse.ArgumentParser
) -> None:
    """Add `completion` to the command line. parser: of the whole command."""
    completed = subparsers.add_parser(
        "completion",
        help="print a script by which a shell completes this command",
        description="Prints a script by which a shell completes this command.",
        epilog="bash:  source <(flowagg completion bash), in ~/.bashrc\n"
        "zsh:   flowagg completion zsh > ~/.zfunc/_flowagg, where ~/.zfunc is in fpath\n"
        "tcsh:  flowagg completion tcsh > ~/.flowagg.tcsh, and source that",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completed.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)

    def run(given: argparse.Namespace) -> int:
        print(shtab.complete(parser, shell=given.shell))
        return 0

    completed.set_defaults(run=run)
