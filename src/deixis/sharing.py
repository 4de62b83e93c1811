"""Models to the model hub, only because somebody asked for it, and what their cards say of themselves there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from deixis.checkpoints.layout import CARD, INDEX, MANIFEST
from deixis.errors import DeixisError, UsageError
from deixis.hub import is_hub_id
from deixis.io import printable, write_text
from deixis.registry import PIPELINE_PARTS, SYSTEMS

# The hub's names of licences, by ours.
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "RAIL++-M": "openrail++", "unknown": "unknown"}
# What a push replaces: files of these places that the model does not have are deleted there.
REPLACED = (INDEX, MANIFEST, *(f"{part}/*" for part in (*PIPELINE_PARTS, "head")))
_FRONT = re.compile(r"\A---\s*\n(.*?\n)---\s*\n", re.DOTALL)


class Shareable(Protocol):
    """A predictor, as far as the hub is concerned."""

    @property
    def system(self) -> str:
        """The method."""

    @property
    def licence(self) -> str:
        """Of the weights."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the whole model."""


def metadata(system: str, licence: str, datasets: Sequence[str] = ()) -> dict[str, Any]:
    """What the head of a card says: see huggingface.co/docs/hub/model-cards.

    Args:
        system: the method.
        licence: of the weights. One with conditions goes as ``other``, by its words.
        datasets: what the weights learned from.
    """
    masks = system in SYSTEMS and SYSTEMS[system].task == "refer"
    named = LICENCES.get(licence)
    head: dict[str, Any] = {"license": named or "other"}
    if named is None:
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    head |= {"library_name": "deixis", "pipeline_tag": "image-segmentation" if masks else "depth-estimation"}
    head |= {"tags": ["deixis", system, "referring-expression-segmentation" if masks else "monocular-depth"]}
    if datasets:
        head["datasets"] = list(datasets)
    return head | {"metrics": ["oiou", "miou"] if masks else ["abs_rel", "delta1"]}


def with_metadata(text: str, head: Mapping[str, Any]) -> str:
    """A card with this head; what the card's own head says stays as it is.

    Raises:
        UsageError: if the card's own head is no YAML mapping.
    """
    from yaml import YAMLError, safe_dump, safe_load  # type: ignore[import-untyped]  # comes with huggingface_hub

    found = _FRONT.match(text)
    try:
        own = safe_load(found[1]) if found else {}
    except YAMLError as error:
        raise UsageError(CARD, "has a head that is no YAML", "repair what stands between its lines of ---") from error
    if not isinstance(own, dict):
        raise UsageError(CARD, "has a head that is no mapping", "repair what stands between its lines of ---")
    body = text[found.end() :] if found else text
    return f"---\n{safe_dump({**head, **own}, sort_keys=False, allow_unicode=True)}---\n\n{body.lstrip()}"


def push(model: Shareable, hub_id: str, *, private: bool, revision: str | None, token: str | None) -> str:
    """Upload a whole model with its card; the repository and the branch are made if they are not there.

    Files of an earlier model in the same place are replaced, in the same commit. Other files there stay.

    Args:
        model: what to upload.
        hub_id: ``owner/name``.
        private: a repository that is made is to be seen by its owner alone; by default as the owner's settings say.
        revision: the branch; ``main`` by default.
        token: of the hub; what ``hf auth login`` stored, or ``HF_TOKEN``, by default.

    Returns:
        its address.

    Raises:
        UsageError: if ``hub_id`` is none, there is no token, or the card's head cannot be read.
        CheckpointError: if the folder to upload cannot be written among the temporary files.
        DeixisError: if the hub cannot be reached or refuses; one line that says which.
    """
    from huggingface_hub import HfApi, get_token

    from deixis import __version__

    # The hub's own rule, beyond the form of an id.
    if not is_hub_id(hub_id) or "--" in hub_id or ".." in hub_id or hub_id.endswith((".git", ".", "-")):
        raise UsageError(printable(hub_id), "is no hub id", "give owner/name, in letters, digits, '-', '_' and '.'")
    token = token or get_token()
    if not token:
        raise UsageError("token", "is missing", "run 'hf auth login', set HF_TOKEN or pass --token")
    api = HfApi(token=token, library_name="deixis", library_version=__version__)
    with _hub(hub_id):
        # None leaves it to the owner's settings.
        address = str(api.create_repo(hub_id, private=private or None, exist_ok=True))
        if revision is not None:
            api.create_branch(hub_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deixis-") as place:
        folder = Path(place, hub_id.partition("/")[2])
        model.save_pretrained(folder)
        card = folder / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else _short_card(model, hub_id)
        write_text(card, with_metadata(text, metadata(model.system, model.licence)))
        with _hub(hub_id):
            api.upload_folder(
                repo_id=hub_id,
                folder_path=folder,
                revision=revision,
                delete_patterns=list(REPLACED),
                commit_message=f"{model.system} by deixis {__version__}",
            )
    return address if revision is None else f"{address}/tree/{revision}"


@contextmanager
def _hub(hub_id: str) -> Iterator[None]:
    """Whatever the hub's library raises, in one line."""
    try:
        yield
    except Exception as error:  # among them those of its HTTP library, which differs between versions
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        owner = hub_id.partition("/")[0]
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        known = {
            401: ("is refused: the hub does not know the token", "run 'hf auth login' again or pass another --token"),
            403: (
                "is refused: the token may not write there",
                f"use one with write access to {owner}, or another owner",
            ),
            404: ("is not there for this token", f"use a token that may see {owner}'s models, or check the name"),
        }
        problem, remedy = known.get(
            status or 0,
            (
                f"cannot be uploaded to the model hub ({why})",
                "connect to the internet, or wait a while, and do it again: what is there stays as it was",
            ),
        )
        raise DeixisError(hub_id, problem, remedy) from error


def _short_card(model: Shareable, hub_id: str) -> str:
    """For a model that has no card of its own."""
    command = "segment photo.jpg 'the red chair'" if model.system.endswith("refer") else "depth photo.jpg"
    lines = [f"# {hub_id.partition('/')[2]}", "", f"System `{model.system}`, licence: {model.licence}.", ""]
    return "\n".join([*lines, "```", "pip install deixis", f"deixis {command} --model {hub_id}", "```", ""])
