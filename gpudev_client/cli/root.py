"""The command itself: global options, the verbs, and how every run ends."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from gpudev_client.errors import GpuDevError

from . import account, capacity, disks, edit, keys, reservations, reserve, ssh, submit
from .app import INTERRUPTED, App, Refused, in_words
from .verbs import Verbs


class Root(Verbs):
    """Turns what goes wrong into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        app: App = ctx.ensure_object(App)
        try:
            return super().invoke(ctx)
        except GpuDevError as error:
            if app.debug:
                raise
            raise _fitted(app, app.told(in_words(error))) from None
        except (KeyboardInterrupt, click.Abort, EOFError):
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except Refused as refused:
            refused.width = app.error_width
            raise
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:  # the edge: a person gets a sentence, or --debug the rest
            if app.debug:
                raise
            raise _fitted(
                app,
                f"gpu-dev itself failed ({type(error).__name__}). "
                "Run it again as `gpu-dev --debug ...` for the details.",
            ) from None
        finally:
            app.close()


def _fitted(app: App, message: str) -> Refused:
    refused = Refused(message)
    refused.width = app.error_width
    return refused


@click.group(cls=Root, name="gpu-dev", invoke_without_command=True)
@click.option("--url", metavar="ADDRESS", help="Another Hub or service than the configured one.")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.option("--version", is_flag=True, help="Show the version and exit.")
@click.pass_context
def gpu_dev(ctx: click.Context, url: str | None, debug: bool, version: bool) -> None:
    """Reserve GPUs for a bounded time and work on them.

    Start with `gpu-dev login`, then `gpu-dev avail` and `gpu-dev reserve`.
    """
    app: App = ctx.ensure_object(App)
    app.url, app.debug = url, debug
    if version:
        from importlib.metadata import version as installed

        click.echo(f"gpu-dev {installed('gpudev')}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@click.command("help")
@click.argument("command", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show help for a command."""
    here: click.Context = ctx.find_root()
    for name in command:
        group = here.command
        if not isinstance(group, Verbs):
            raise click.UsageError(f"{here.command_path!r} has no verbs of its own.", here)
        _, found, _ = group.resolve_command(here, [name])
        if found is None:
            raise click.UsageError(f"There is no verb {name!r}.", here)
        here = click.Context(found, info_name=name, parent=here)
    click.echo(here.get_help())


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete gpu-dev's verbs and options.

    For bash: eval "$(gpu-dev completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise Refused(f"There is no completion for {shell}.")
    click.echo(kind(gpu_dev, {}, "gpu-dev", "_GPU_DEV_COMPLETE").source())


for _verb in (
    account.login,
    account.config_group,
    capacity.avail,
    reserve.reserve,
    submit.submit,
    reservations.list_,
    reservations.show_,
    ssh.connect,
    edit.edit,
    reservations.cancel,
    disks.disk,
    keys.ssh_keys,
    ssh.ssh_config,
    ssh.vscode,
    ssh.proxy,
    capacity.status,
    help_,
    completion,
):
    gpu_dev.add_command(_verb)


def main() -> NoReturn:
    """The entry point."""
    gpu_dev.main(prog_name="gpu-dev", obj=App())
    sys.exit(0)
