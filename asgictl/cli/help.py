"""Groups the options of --help by subject, and names the option that users of other servers look for."""

import click

# The parameter names of each group; any other option comes last.
SECTIONS = {
    "What runs": "app_dir env_file mode server name watches detach",
    "Network": "bind admin_port probe_port redis root_path forwarded_allow_ips allowed_origins affinity"
    " uvicorn_option gunicorn_option",
    "Limits": "timeout max_message_bytes max_body_bytes capacity limit silent_seconds",
    "Workers": "workers threads interfaces only_channels exclude_channels max_events max_memory_mib",
    "Deploys": "release start_seconds drain_seconds drain_rate shutdown_delay",
    "Logs": "access_log slow_seconds log_format log_file_mib",
}

ADDRESS = {"--host", "--port"}  # uvicorn's


class Command(click.Command):
    """A command whose --help groups its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and name --bind to who gives an address in another server's spelling."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in ADDRESS and any(each.name == "bind" for each in self.params):
                hint = f"No such option '{error.option_name}': use --bind HOST:PORT."
                raise click.NoSuchOption(error.option_name, hint, ctx=ctx) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group that has options here."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        rest = {str(each.name): record for each in options if (record := each.get_help_record(ctx))}
        for title, names in SECTIONS.items():
            if found := [rest.pop(name) for name in names.split() if name in rest]:
                with formatter.section(title):
                    formatter.write_dl(found)
        with formatter.section("Options"):
            formatter.write_dl(list(rest.values()))
