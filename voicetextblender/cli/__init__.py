"""The command `vtb`: one verb, one module, imported when the verb is used."""

import os
import sys

import typer

from voicetextblender.cli import data, eval, share, synth, train, use
from voicetextblender.cli.common import note

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Give a language model the ability to understand speech, and prove it forgot nothing.",
)
train.add_to(app)
use.add_to(app)
share.add_to(app)
eval.add_to(app)
app.add_typer(data.app, name="data")
app.add_typer(synth.app, name="synth")


def main() -> None:
    """Run `vtb`; what a user can cause ends with one sentence and a non-zero code."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, not at Python's own end
    except BrokenPipeError:
        # `head` has had enough: what is left to write goes nowhere, and that is no news to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:
        note(f"Error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
