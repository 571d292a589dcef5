"""`noria users` and `noria tokens`: who may use the server. Whoever can open the database is its administrator."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from noria.access import Grant, Role
from noria.access import tokens as token_records
from noria.access import users as user_records
from noria.clock import SystemClock
from noria.errors import InvalidInput
from noria.surface.cli.context import JsonOption, ProjectOption, actor, clear_errors, open_records, out, show, talk

users = typer.Typer(no_args_is_help=True, add_completion=False, help="Users of the server and their roles.")
tokens = typer.Typer(no_args_is_help=True, add_completion=False, help="API tokens.")
NameArgument = Annotated[str, typer.Argument(help="Name of the user.")]
RoleArgument = Annotated[Role, typer.Argument(help="The role.")]
ModelsOption = Annotated[str, typer.Option("--models", help="Pattern of the models it holds for; * is everything.")]


@users.command()
@clear_errors
def add(
    name: NameArgument,
    role: Annotated[Role, typer.Option(help="Its role.")] = Role.VIEWER,
    models: ModelsOption = "*",
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    no_password: Annotated[bool, typer.Option("--no-password", help="Signs in by token only.")] = False,
    project: ProjectOption = None,
) -> None:
    """Add a user; asks for a password."""
    workspace = open_records(project)
    password = None if no_password else _password(from_stdin=password_stdin)
    with workspace.database.write() as tx:
        user_records.add_user(
            tx, name, at=SystemClock().now(), actor=actor(), password=password, grants=[Grant(role, models)]
        )
    out.print(f"{name} is {role} of {models}", highlight=False)


@users.command(name="list")
@clear_errors
def list_users(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the users and their roles."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "user": user.name,
                "roles": ", ".join(f"{grant.role} of {grant.pattern}" for grant in user.grants),
                "origin": user.origin,
                "disabled": "yes" if user.disabled else "",
                "created_at": user.created_at,
            }
            for user in user_records.list_users(tx)
        ]
    show(rows, as_json=as_json, title="Users")


@users.command()
@clear_errors
def grant(name: NameArgument, role: RoleArgument, models: ModelsOption = "*", project: ProjectOption = None) -> None:
    """Give a user a role."""
    with open_records(project).database.write() as tx:
        user_records.grant(tx, name, Grant(role, models), at=SystemClock().now(), actor=actor())
    out.print(f"{name} is {role} of {models}", highlight=False)


@users.command()
@clear_errors
def revoke(name: NameArgument, role: RoleArgument, models: ModelsOption = "*", project: ProjectOption = None) -> None:
    """Take a role from a user."""
    with open_records(project).database.write() as tx:
        user_records.revoke(tx, name, Grant(role, models), at=SystemClock().now(), actor=actor())
    out.print(f"{name} is no longer {role} of {models}", highlight=False)


@users.command()
@clear_errors
def password(
    name: NameArgument,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    project: ProjectOption = None,
) -> None:
    """Set a user's password."""
    workspace = open_records(project)
    chosen = _password(from_stdin=password_stdin)
    with workspace.database.write() as tx:
        user_records.set_password(tx, name, chosen, at=SystemClock().now(), actor=actor())
    out.print(f"{name} has a new password", highlight=False)


@users.command()
@clear_errors
def disable(name: NameArgument, project: ProjectOption = None) -> None:
    """Shut a user out, with every token."""
    with open_records(project).database.write() as tx:
        user_records.set_disabled(tx, name, True, at=SystemClock().now(), actor=actor())
    out.print(f"{name} is shut out", highlight=False)


@users.command()
@clear_errors
def enable(name: NameArgument, project: ProjectOption = None) -> None:
    """Let a disabled user in again."""
    with open_records(project).database.write() as tx:
        user_records.set_disabled(tx, name, False, at=SystemClock().now(), actor=actor())
    out.print(f"{name} may sign in again", highlight=False)


@tokens.command()
@clear_errors
def create(
    user: NameArgument,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires.")] = 365,
    project: ProjectOption = None,
) -> None:
    """Make an API token and print it; it is not shown again."""
    now = SystemClock().now()
    with open_records(project).database.write() as tx:
        token = token_records.create_token(
            tx, user, label=label, at=now, actor=actor(), expires_at=now + timedelta(days=days)
        )
    talk.print("keep it now: it is not shown again", style="dim")
    print(token)


@tokens.command(name="list")
@clear_errors
def list_tokens(
    user: Annotated[str, typer.Option(help="Only this user's.")] = "",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens, without their secrets."""
    with open_records(project).database.read() as tx:
        rows = [
            {
                "token": token.token_id,
                "user": token.user,
                "label": token.label,
                "created_at": token.created_at,
                "expires_at": token.expires_at,
                "revoked_at": token.revoked_at,
            }
            for token in token_records.list_tokens(tx, user or None)
        ]
    show(rows, as_json=as_json, title="API tokens")


@tokens.command(name="revoke")
@clear_errors
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Id of the token, as `noria tokens list` shows it.")],
    project: ProjectOption = None,
) -> None:
    """End a token."""
    with open_records(project).database.write() as tx:
        token_records.revoke_token(tx, token_id, at=SystemClock().now(), actor=actor())
    out.print(f"{token_id} is revoked", highlight=False)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise InvalidInput("nobody is there to type the password", remedy="Pipe it in, with --password-stdin.")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
