"""What the verbs share: the application, the options they have in common, the config they load."""

from __future__ import annotations

from typing import Annotated

import typer

from kit19_ray import __version__
from kit19_ray.config.schema import Config
from kit19_ray.errors import UserError

app = typer.Typer(
    name="kit19",
    help="Build KIT-19, fine-tune on it, measure it and serve it, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML file, local or a file:// or s3:// URI; - is standard input."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Overrides, such as train.epochs=1.")
]
Ablation = Annotated[
    str | None,
    typer.Option(
        metavar="with-test", help="Train on test splits too and do not decontaminate, to see what a leak is worth."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def load(config: str | None, overrides: list[str] | None, needs_root: bool = True) -> Config:
    """The config of a file and overrides. From here on stdout is for the verb's output alone.

    Args:
        needs_root: False where nothing is read or written below the root.
    """
    from kit19_ray.config import loading
    from kit19_ray.utils import console

    console.reserve_stdout()
    return loading.load(config, overrides or [], needs_root=needs_root)


def load_served(config: str | None, overrides: list[str] | None) -> Config:
    """The config of a command that answers with a model; a model that is named needs no root.

    Raises:
        UserError: neither is given.
    """
    loaded = load(config, overrides, needs_root=False)
    if loaded.serve.model is None and not loaded.root:
        raise UserError(
            "serve.model is not set, and without a root there is no trained model",
            hint="add serve.model=... or root=...",
        )
    return loaded


def ablated(overrides: list[str] | None, ablation: str | None) -> list[str]:
    """The overrides with the one that `--ablation` stands for."""
    return [*(overrides or []), *([f"data.ablation={ablation}"] if ablation else [])]


def _version(asked: bool) -> None:
    if asked:
        print(f"kit19-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
