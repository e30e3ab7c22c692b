"""The command line: parses, wires, and is the only place that exits the process."""

import os
import signal
from pathlib import Path
from typing import Any

import click

from asgictl import __version__
from asgictl.cli.compare import compare
from asgictl.cli.messages import dead_letters, send
from asgictl.cli.operate import logs, reload, restart, scale, stacks
from asgictl.cli.roles import controller, interface, server, worker
from asgictl.cli.settings import defaults, read_settings, source
from asgictl.cli.start import SIGNALLED, config, start, stop
from asgictl.cli.status import ps, status
from asgictl.errors import AsgictlError
from asgictl.telemetry.logs import masked


class Commands(click.Group):
    """Turns an AsgictlError into its message and exit status (listed in asgictl.errors)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AsgictlError as error:
            click.echo(f"Error: {masked(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:  # before the command could listen for it
            ctx.exit(SIGNALLED + signal.SIGINT)
        except click.BadParameter as error:
            if not (error.ctx and error.param and ctx.obj == source(error.ctx, error.param)):
                raise
            raise click.BadParameter(f"{ctx.obj}: {error.message}", error.ctx, error.param) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="asgictl %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Serve one Python web application, split across processes or in-process.

    \b
    Exit status:
      0  success                         9  message cannot be sent or requeued
      1  internal error                 10  no such background channel
      2  wrong usage                    11  background channel full
      3  TARGET cannot be served        12  comparison failed
      4  cannot listen on the address   13  run directory unsafe or not writable
      5  Redis cannot be used           14  supervisord died; others still serve
      6  instance already running       15  status --check found something
      7  instance not running          130  Ctrl-C during start
      8  process not ready in time     143  SIGTERM during start
    """
    if "ASGICTL_RUN_DIR" in os.environ:  # `start` has told its processes what it read; the file may have changed
        return
    ctx.obj, settings = read_settings(Path.cwd(), start)
    ctx.default_map = defaults(main, settings)


_OPERATORS = (start, stop, status, ps, reload, restart, scale, logs, stacks, config, send, dead_letters, compare)
for _command in (*_OPERATORS, interface, worker, controller, server):
    main.add_command(_command)
