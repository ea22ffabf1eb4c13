"""The command `gpudev`: serves, or does one thing (`migrate`, `backup FILE`, `loop NAME`,
`simulate`)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub.services.auth import HubOAuth
from traitlets import Bool, TraitError, Unicode
from traitlets.config import Application
from traitlets.config.loader import ConfigFileNotFound

from . import server
from .api import logs
from .config import ConfigurationError, GpuDev, GpuDevWeb
from .keeper import keep
from .loops import LOOPS
from .loops.runner import run_once
from .operations import doubts
from .settings import Settings
from .simulate.options import ALIASES, FLAGS, Simulate
from .store import migrate
from .store.backup import backup_sqlite
from .store.engine import Store
from .store.errors import StoreError, StoreMisconfigured
from .takeover import Occupied, Unwritable, lock

log = logging.getLogger(__name__)

WRONG_CONFIGURATION = 2
FAILED = 1
DEFAULT_FILE = "gpudev_config.py"


class GpuDevApp(Application):
    """GPU reservations for JupyterHub: the Hub-managed service.

    The Hub starts it as a managed service and tells it by JUPYTERHUB_* variables where it is.
    """

    name = "gpudev"
    description = __doc__
    #: Whether a word that is no command means something.
    takes_argument = False
    classes = [GpuDev, GpuDevWeb, HubOAuth]  # noqa: RUF012 - traitlets reads it from the class

    #: A file with a mistake would otherwise be half of a configuration.
    raise_config_file_errors = True

    config_file = Unicode(
        DEFAULT_FILE, help="The configuration file; the default may be missing."
    ).tag(config=True)
    generate_config = Bool(False, help="Write a configuration file with all traits, and end.").tag(
        config=True
    )

    aliases: Any = {  # noqa: RUF012
        ("f", "config"): "GpuDevApp.config_file",
        "db-url": "GpuDev.db_url",
        "data-dir": "GpuDev.data_dir",
        "bind-url": "GpuDevWeb.bind_url",
        "log-format": "GpuDevWeb.log_format",
        "log-level": "GpuDevWeb.log_level",
    }
    flags: Any = {  # noqa: RUF012
        "generate-config": (
            {"GpuDevApp": {"generate_config": True}},
            "Write gpudev_config.py with every trait and its help, and end.",
        ),
        "text-logs": ({"GpuDevWeb": {"log_format": "text"}}, "Logs for people, not as JSON."),
    }

    def initialize(self, argv: Sequence[str] | None = None) -> None:
        self.parse_command_line(list(argv) if argv is not None else None)
        if self.subapp is not None:
            return
        if self.extra_args and not self.takes_argument:
            known = ", ".join(self.subcommands) or "none"
            raise ConfigurationError(
                f"{self.name} does not know {self.extra_args[0]!r}. Commands: {known}."
            )
        if self.generate_config:
            return
        self.read_file()
        self.refuse_unknown()

    def read_file(self) -> None:
        path = Path(self.config_file)
        if not path.exists() and self.config_file == DEFAULT_FILE:
            return
        command_line = self.cli_config
        try:
            self.load_config_file(path.name, path=str(path.parent.absolute()))
        except ConfigFileNotFound:
            raise ConfigurationError(f"GpuDevApp.config_file: there is no {path}.") from None
        self.update_config(command_line)

    def load_config_file(self, filename: str, path: Any = None) -> None:
        """Reads the file; a mistake in it is said with its place instead of a traceback."""
        file = Path(str(path)) / filename
        if not file.exists():
            raise ConfigFileNotFound(str(file))
        try:
            super().load_config_file(filename, path=path)
        except SyntaxError as error:
            raise ConfigurationError(f"{file}, line {error.lineno}: {error.msg}.") from None
        except TraitError:
            raise
        except Exception as error:
            # Whatever the operator's own code raises is a mistake in the configuration.
            raise ConfigurationError(f"{file}: {type(error).__name__}: {error}") from error

    def refuse_unknown(self) -> None:
        """A misspelt trait would otherwise only be warned about, and what it meant not hold."""
        for part in (GpuDev, GpuDevWeb):
            known = part.class_trait_names(config=True)
            for name in self.config.get(part.__name__, {}):
                if name not in known:
                    raise ConfigurationError(
                        f"{part.__name__}.{name} is not known. Known: {', '.join(sorted(known))}."
                    )

    # --- what it does -------------------------------------------------------------------------

    def start(self) -> None:
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.generate_config:
            self.write_default_config()
            return
        self.begin_logging()
        self.work()

    def begin_logging(self) -> None:
        options = GpuDevWeb(parent=self)
        logs.set_up(options.log_format, options.log_level)

    def work(self) -> None:
        """Serves until it is asked to end; starts again at once when it is killed."""
        options, gpudev = GpuDevWeb(parent=self), GpuDev(parent=self)
        settings, hub = gpudev.settings(), hub_access()

        async def run() -> None:
            hub_auth = HubOAuth.instance(parent=self, cache_max_age=options.permission_seconds)
            async with (
                server.candidacy(gpudev.db_url, options) as lead,
                server.context(settings, kinds(gpudev), gpudev.db_url, hub, lead) as ctx,
            ):
                await server.serve(ctx, options, hub_auth, hub.prefix, lead)

        def serve() -> None:
            with lock(settings.data_dir):
                asyncio.run(run())

        keep(serve)

    def write_default_config(self) -> None:
        path = Path(self.config_file)
        text = self.generate_config_file()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigurationError(f"{path} is there already; it is left as it is.") from None
        with os.fdopen(handle, "w") as file:
            file.write(text)
        print(f"Wrote {path}.")  # noqa: T201 - the answer of this command


class MigrateApp(GpuDevApp):
    """Brings the database to the shape that this gpudev works with, and ends. The service does the
    same when it starts."""

    name = "gpudev-migrate"
    description = __doc__

    def work(self) -> None:
        gpudev = GpuDev(parent=self)
        _make_data_dir(gpudev.settings())

        async def run() -> None:
            store = Store(gpudev.db_url)
            try:
                log.info("database at revision %s", await migrate.upgrade(store))
            finally:
                await store.close()

        asyncio.run(run())


class BackupApp(GpuDevApp):
    """Copies the SQLite database to FILE while it is in use: `gpudev backup FILE`."""

    name = "gpudev-backup"
    description = __doc__
    takes_argument = True

    def work(self) -> None:
        if len(self.extra_args) != 1:
            raise ConfigurationError("Usage: gpudev backup FILE.")
        gpudev = GpuDev(parent=self)
        written = backup_sqlite(gpudev.db_url, Path(self.extra_args[0]))
        print(f"Wrote {written}.")  # noqa: T201 - the answer of this command


class LoopApp(GpuDevApp):
    """Runs one loop once, beside a running service or without one: `gpudev loop NAME`."""

    name = "gpudev-loop"
    description = __doc__
    takes_argument = True

    def work(self) -> None:
        if len(self.extra_args) != 1 or self.extra_args[0] not in LOOPS:
            raise ConfigurationError(f"Usage: gpudev loop NAME; NAME is one of {', '.join(LOOPS)}.")
        gpudev = GpuDev(parent=self)
        settings, hub = gpudev.settings(), hub_access()
        _make_data_dir(settings)

        async def run() -> None:
            async with server.context(settings, kinds(gpudev), gpudev.db_url, hub) as ctx:
                await doubts.look_back(ctx)
                due = await run_once(ctx, self.extra_args[0])
                await ctx.background.settle()
                log.info("loop %s has run; next due %s", self.extra_args[0], due or "at its pace")

        asyncio.run(run())


class SimulateApp(GpuDevApp):
    """Replays a trace of requests, and compares the waits, use and fairness that people would have
    met: under this configuration, under other policies, and under Slurm's backfill rules."""

    name = "gpudev-simulate"
    description = __doc__

    classes = [*GpuDevApp.classes, Simulate]  # noqa: RUF012
    aliases: Any = GpuDevApp.aliases | ALIASES
    flags: Any = GpuDevApp.flags | FLAGS

    def begin_logging(self) -> None:
        """What it has to say is its answer."""

    def work(self) -> None:
        from gpudev_client.cli import show

        from .simulate import command

        options, gpudev = Simulate(parent=self), GpuDev(parent=self)
        past = asyncio.run(command.history(gpudev.db_url)) if options.history else None
        say = show.note if sys.stderr.isatty() else command.silent
        found = command.simulate(options, gpudev.settings(), past, say)
        if options.json:
            show.emit_json(found.document())
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            show.out(found.text(width))
        for path in command.write_files(options, found):
            show.note(f"Wrote {path}.")


GpuDevApp.subcommands = {
    "migrate": (MigrateApp, "Migrate the database, and end."),
    "backup": (BackupApp, "Copy the SQLite database to FILE while it is in use."),
    "loop": (LoopApp, "Run one loop once."),
    "simulate": (SimulateApp, "Replay a trace under this policy, others and Slurm's rules."),
}


def hub_access() -> server.HubAccess:
    """How to reach the Hub, from what it gives to the services that it manages.

    Raises:
        ConfigurationError: gpudev was not started by a Hub.
    """
    token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
    if not token:
        raise ConfigurationError(
            "JUPYTERHUB_API_TOKEN is not set: the Hub starts gpudev as a managed service and "
            "gives it a token. Outside of the Hub, set it together with JUPYTERHUB_API_URL."
        )
    return server.HubAccess(
        api_url=os.environ.get("JUPYTERHUB_API_URL", "http://127.0.0.1:8081/hub/api"),
        token=token,
        prefix=os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/services/gpudev/"),
    )


def kinds(gpudev: GpuDev) -> server.Kinds:
    """Which implementations the traits name."""
    return server.Kinds(fleet=gpudev.fleet, servers=gpudev.servers, disks=gpudev.disks)


def _make_data_dir(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Ends with 0, with 2 when the configuration cannot work, with 1 when something else does."""
    app = GpuDevApp()
    try:
        app.initialize(argv)
        app.start()
    except (ConfigurationError, TraitError, StoreMisconfigured) as error:
        sys.exit(_say(error, WRONG_CONFIGURATION))
    except (Occupied, Unwritable, StoreError) as error:
        sys.exit(_say(error, FAILED))


def _say(error: Exception, code: int) -> int:
    print(f"gpudev: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
    return code
