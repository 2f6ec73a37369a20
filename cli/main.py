"""The `mr` command. Each command's module is imported when it is used, so `mr --help` stays quick."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from cli.errors import CommandError, Exit

# name -> (module with `configure(name, parser)`, one line of help)
COMMANDS: dict[str, tuple[str, str | None]] = {
    "up": ("cli.up", "start the whole service on this machine"),
    "demo": ("cli.demo", "run the main job on a service of its own, and leave demo-output/"),
    "submit": ("cli.submit", "submit a job from a JSON file"),
    "evaluate": ("cli.submit", "judge an adapter on another dataset"),
    "diagnose": ("cli.submit", "say before training how well a backbone would serve a dataset"),
    "rank": ("cli.submit", "order backbones, input transforms and label mappings for a dataset"),
    "reprogram": ("cli.submit", "train an adapter"),
    "auto": ("cli.submit", "search methods and settings under a budget, and train the best"),
    "train-source": ("cli.submit", "train a source model, which is a backbone then"),
    "jobs": ("cli.jobs", "list jobs"),
    "job": ("cli.jobs", "show a job"),
    "cancel": ("cli.jobs", "cancel a job"),
    "events": ("cli.jobs", "list what happened to a job"),
    "datasets": ("cli.datasets", "list, upload, show or delete datasets"),
    "backbones": ("cli.backbones", "list or register source models"),
    "adapters": ("cli.adapters", "list, download, import or name adapters"),
    "predict": ("cli.predict", "classify images with an adapter file; needs no service"),
    "methods": ("cli.methods", "list the methods that the service knows"),
    "gateway": ("cli.parts", "run the HTTP gateway"),
    "worker": ("cli.parts", "run a worker of one queue"),
    "sweeper": ("cli.parts", "run a sweeper"),
    "predictor": ("cli.parts", "run a predictor"),
    "migrate": ("cli.migrate", "bring the database to this version's schema"),
    "keys": ("cli.keys", "create API keys, straight in the database"),
    "doctor": ("cli.doctor", "check what this machine and the service need"),
    "postgres": ("cli.parts", None),  # `mr up` runs it; not shown
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parser(given).parse_args(given)
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except CommandError as error:
        return _say(error, error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", Exit.FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no traceback at exit
        return Exit.FAILED
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        return _say(*known)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, of which only the one asked for knows its arguments."""
    parser = argparse.ArgumentParser(prog="mr", description="Reprogram frozen models on demand.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = next((argument for argument in given if not argument.startswith("-")), None)
    for name, (module, help_line) in COMMANDS.items():
        if help_line is None:
            command = commands.add_parser(name)
        else:
            sentence = f"{help_line[0].upper()}{help_line[1:]}."
            command = commands.add_parser(name, help=help_line, description=sentence)
        if name == asked:
            importlib.import_module(module).configure(name, command)
    return parser


def _known(error: Exception) -> tuple[str, Exit] | None:
    """What to say of an error that the library or the service raises on purpose, by its stable code."""
    if sys.modules.get("pydantic") and isinstance(error, sys.modules["pydantic"].ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}", Exit.USAGE
    code, detail = getattr(error, "code", None), getattr(error, "detail", None)
    if isinstance(code, str) and isinstance(detail, str):
        return f"{code}: {detail}", Exit.UNREACHABLE if code.endswith("unavailable") else Exit.USAGE
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", Exit.USAGE
    return None


def _say(message: object, code: Exit) -> int:
    print(f"mr: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
