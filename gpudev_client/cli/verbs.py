"""Groups of verbs, and options that several verbs share."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime

import click


class Verbs(click.Group):
    """A group in the order of its definition, which knows what a mistyped verb could have been."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click cuts the summaries to one line each; here they wrap.
        rows = [(name, verb.get_short_help_str(1000)) for name, verb in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.commands, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}?" if close else f"See `{ctx.command_path} --help`."
            raise click.UsageError(f"There is no verb {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


def when(text: str) -> datetime:
    """A point in time, in the zone of this machine where none is given."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time; write 2026-05-14 or '2026-05-14 18:40'."
        ) from None


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON; times are in UTC.")
yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
of_user = click.option("-u", "--user", metavar="USER", help="Somebody else's (for admins).")
