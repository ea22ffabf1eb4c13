"""`docs/users/cli.md`, from the verbs of `gpu-dev` themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gpudev_client.cli.root import gpu_dev

from .markdown import NOTICE, code, fenced, paragraphs, table

_INTRODUCTION = """\
# The `gpu-dev` command

Every verb with its options. What they are for is in [the guide](guide.md#the-command).

**Where it finds the service.** `--url` comes first, then `GPUDEV_URL` with `GPUDEV_TOKEN`, then
the file that `gpu-dev login` writes (`GPUDEV_CONFIG` puts it elsewhere; `gpu-dev config show`
names it). Inside a server of gpudev the environment has all of it. A token goes only to the
address that it was given or stored for.

**Ids.** In place of a reservation's or snapshot's id its first four characters or more do, as
long as they name one. Without an id, a verb that works on one reservation takes the only live
one.

**Output.** Answers go to standard output, progress and questions to standard error. Every listing
has `--json`, with times in UTC; without it, times are in this machine's zone. Nothing is cut when
the output is not a terminal. `NO_COLOR` turns colours off.

**Questions** are asked on a terminal only; `--yes` answers them, `--no-interactive` takes the
defaults.

**Exit codes.** 0: it is done. 1: the service refused, could not be reached, or the person said
no. 2: the command line itself is wrong. 130: Ctrl-C.
"""


def page() -> str:
    root = click.Context(gpu_dev, info_name="gpu-dev")
    rows = [(f"[`{path}`](#{path.replace(' ', '-')})", short) for path, short in _index(root)]
    parts = [NOTICE, _INTRODUCTION, "## Verbs\n", table(("verb", "what it does"), rows) + "\n"]
    parts += [_section(context) for context in _walk(root)]
    return "\n".join(parts).rstrip() + "\n"


def _walk(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it, in the order of `--help`."""
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None:
                yield from _walk(click.Context(command, info_name=name, parent=context))


def _index(root: click.Context) -> Iterator[tuple[str, str]]:
    for context in _walk(root):
        if not isinstance(context.command, click.Group):
            yield context.command_path, context.command.get_short_help_str(1000)


def _section(context: click.Context) -> str:
    command = context.command
    parts = [f"## {context.command_path}", fenced(_usage(context)), paragraphs(command.help)]
    rows = [
        (code(names), text)
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context))
        for names, text in [record]
        if text  # arguments say themselves what they are
    ]
    parts.append(table(("option", "meaning"), rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _usage(context: click.Context) -> str:
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
