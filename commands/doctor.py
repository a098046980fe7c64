"""`doctor`: what this machine has, and what is missing."""

import typer

from commands.groups import grouped
from commands.terminal import escape, out
from support.errors import ENVIRONMENT


@grouped
def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from pipeline.machine.doctor import examine

    checks = examine()
    for check in checks:
        mark = "[green]ok [/]" if check.ok else ("[red]no [/]" if check.needed else "[yellow]-  [/]")
        out.print(f"{mark} [bold]{check.name}[/] {escape(check.detail)}", soft_wrap=True)
        if not check.ok and check.fix:
            out.print(f"      {escape(check.fix)}", soft_wrap=True)
    if any(not check.ok and check.needed for check in checks):
        raise typer.Exit(ENVIRONMENT)
