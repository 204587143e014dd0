"""A selector folder -> the model hub, with all that was learned and its card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gainrag.errors import ConfigError, DataError, GainragError, ModelError
from gainrag.models.folder import resolve
from gainrag.models.hub import unreachable_hub
from gainrag.selectors.fetching import SELECTOR
from gainrag.settings import Name, checked

# What a card calls the folder that it lies in; on the hub it is the selector's name there.
HERE = "path/to/this/folder"
_CARD = "README.md"


@checked
def push(
    selector: str | Path, repo: str, *, private: bool = True, message: Name = "A selector trained with gainrag"
) -> str:
    """Upload a selector folder to the Hugging Face hub: weights, calibration, features, exported copies and the card.
    Whoever may read it then names it OWNER/NAME where a selector is asked for.

    Args:
        selector: a selector folder.
        repo: OWNER/NAME; made where it is not there yet, and else given one more commit.
        private: whether a new one can be read by its owner alone. A selector of trees holds the words of the texts it
            learned from, with how many passages they are in.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        DataError: there is no such folder, or it holds no selector.
        ConfigError: `repo` is no OWNER/NAME.
        ModelError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    folder = Path(resolve(str(selector)))
    if not any((folder / name).is_file() for name in SELECTOR):
        raise DataError("no selector folder", where=str(selector), hint="make one with `gainrag train`")
    owner, slash, name = repo.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise ConfigError("is no name of a repository", where=repo, hint="give OWNER/NAME")
    if host := unreachable_hub():
        raise ModelError(f"{host} cannot be reached", where=repo, hint="check the network")
    api = HfApi(library_name="gainrag")
    with _refusals(repo), _as_pushed(folder, repo) as whole:
        api.create_repo(repo, private=private, exist_ok=True)
        found = api.upload_folder(repo_id=repo, folder_path=whole, commit_message=message)
    return str(found.commit_url)


@contextmanager
def _as_pushed(folder: Path, repo: str) -> Iterator[Path]:
    """A folder of links to a selector's files, its card with the name on the hub in place of the folder's."""
    with tempfile.TemporaryDirectory(prefix="gainrag-push-") as made:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            link = Path(made) / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            if link == Path(made) / _CARD:
                link.write_text(file.read_text(encoding="utf-8").replace(HERE, repo), encoding="utf-8")
            else:
                link.symlink_to(file.resolve())
        yield Path(made)


@contextmanager
def _refusals(repo: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line.

    Raises:
        ModelError: anything was raised but an error of our own.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except GainragError:
        raise
    except HFValidationError as error:
        raise ConfigError(str(error).strip().split("\n")[0], where=repo, hint="give OWNER/NAME") from error
    except Exception as error:
        what = str(error).strip().split("\n")[0][:200] or type(error).__name__
        hint = "try again"
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
            hint = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
        raise ModelError(f"the selector was not pushed ({what})", where=repo, hint=hint) from error
